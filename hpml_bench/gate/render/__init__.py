"""gate/render."""
