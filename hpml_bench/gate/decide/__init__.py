"""gate/decide."""
