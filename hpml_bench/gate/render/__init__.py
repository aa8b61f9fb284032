"""Rendering: a report as tables, drawings, files and annotations; imports `records` and `decide` of the gate."""
