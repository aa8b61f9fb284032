"""From scores of systems by runs and rows to verdicts, and to one summary of them.

Pages, the terminal, `compare` and trackers read the summary; the rounds of a sweep read the
verdicts alone. May import `select`, `records`, `statistics` and what is below them; no page, no
training library.
"""
