"""Command: pages of folders checked, and what was found."""

from __future__ import annotations

from pathlib import Path

from audit.page import Audit, read_page
from audit.reading import read_study
from audit.sentences import check_line, check_rules
from audit.steps import check_record
from audit.study import Study
from audit.tables import check_table
from audit.whole import check_all_said, check_all_shown


def audit_page(study: Study, page: Path) -> Audit:
    """Check a page, and the compared runs' records against their points."""
    audit = Audit()
    tables, lines = read_page(page)
    for table in tables:
        check_table(audit, table, study)
    for section, text in lines:
        check_line(audit, section, text, study)
    check_rules(audit, lines, study)
    check_all_said(audit, lines, study)
    check_all_shown(audit, tables, study)
    for run in study.compared:
        check_record(audit, run)
    return audit


def main(arguments: list[str], usage: str) -> int:
    """Check the pages of folders and print what was found."""
    folders = [Path(name) for name in arguments if name != "-v"]
    if not folders or not all((folder / name).exists() for folder in folders for name in ("report.md", "suite.json")):
        print(usage)
        return 2
    wrong = False
    for folder in folders:
        audit = audit_page(read_study(folder), folder / "report.md")
        for table, count in audit.checked.items():
            print(f"{count:5} checked: {table}")
        for line, count in audit.unchecked.items():
            print(f"{count:5} not checked: {line}")
        for line in audit.passed_over if "-v" in arguments else []:
            print(f"no check for: {line}")
        for line in audit.problems:
            print(f"DISAGREES: {line}")
        print(f"{folder}: {audit.checked.total()} figures checked, {len(audit.problems)} disagree")
        wrong |= bool(audit.problems)
    return int(wrong)
