"""gate/measure."""
