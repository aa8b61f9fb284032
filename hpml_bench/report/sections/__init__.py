"""One file per section of the report: `section(results) -> Section | None`."""
