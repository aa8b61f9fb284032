"""From scores of systems by runs and rows to verdicts, and to one summary of them.

Pages, the terminal, `compare`, `check`, trackers and the rounds of a sweep read the summary. May
import `select`, `records`, `statistics` and what is below them; no page, no training library.
"""
