"""Rendering: a report as tables, drawings, files and annotations; of the gate it imports `records` and `decide`."""
