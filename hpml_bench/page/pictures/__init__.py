"""Pictures of pages and papers: functions from data to `Picture`, and what draws one as SVG, PDF or
PNG.

Imports the report's results and answer, never its pages; matplotlib in `paper` alone.
"""
