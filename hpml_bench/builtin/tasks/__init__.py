"""Tasks, one file each: a class that extends plugins.task.Task."""
