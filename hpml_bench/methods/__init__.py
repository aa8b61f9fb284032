"""Fine-tuning methods, one file each: a class that extends plugins.method.Method.

May import `plugins`, and `training` inside functions; no other plug-in.
"""
