"""The answer of a report: which methods are best, what they cost, how sure that is; as numbers,
words, picture, table.

The first screen, `report.json`, the table `answer` and the terminal say it from one frozen value,
`PageSummary`.
"""
