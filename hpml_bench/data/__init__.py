"""From a source to token ids on disk: hub, wheels, files, tokenizer, preparation, rows and batches.

May import `plugins` and what is below it.
"""
