"""Fine-tuning methods, one file each: a class that extends plugins.method.Method.

May import `plugins` and what is before it, and `training` inside functions; no other plug-in.
"""
