"""From results and their summary to a page: sentences, tables, figures, HTML and Markdown.

Decides nothing: verdicts are those of `judge`. May import `judge`, `select`, `records`, `plugins`
and what is below them; no training library.
"""
