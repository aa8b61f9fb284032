"""From records to a page: selection of runs, results, tables, figures, sections, HTML and Markdown.

May import `records`, `statistics`, `plugins` and what is below them; no training library.
"""
