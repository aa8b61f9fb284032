"""Fine-tuning methods, one file each: a class that extends plugins.method.Method."""
