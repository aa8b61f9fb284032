"""One file per task. A task's `load(settings, options) -> TaskData` gives splits of (text, label) rows."""
