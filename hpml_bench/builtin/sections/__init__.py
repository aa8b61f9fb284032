"""Sections of the report, one file each: `section(results) -> Section | None`, and `order`, its
place.
"""
