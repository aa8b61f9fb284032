"""One file per fine-tuning method. docs/adding.md shows how to add one."""
