"""GitHub's view of a check: a report in Markdown for a pull request or a job's summary, and annotations on the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpml_bench.gate.records import CheckReport
from hpml_bench.gate.render import tables
from hpml_bench.report.export import markdown_table, markdown_text
from hpml_bench.system.errors import UserError
from hpml_bench.system.redaction import redacted
from hpml_bench.system.text import sanitize

MARK = "<!-- hpml-bench check -->"
"""Beginning of the text, by which a bot finds and updates its own comment."""
MOST = 10
"""Most annotations of one kind that GitHub shows for a step."""
LONGEST_SUMMARY = 1_000_000
"""Bytes; GitHub drops the summary of a step that writes more than 1 MiB."""


def markdown(report: CheckReport) -> str:
    """Return Markdown: outcome, what is wrong, step times; the counts and the circumstances folded."""
    times, counts = tables.step_times(report), tables.counted(report)
    changed = tables.counted(report, changed_only=True)
    facts = _list(f"{key}: {value}" for key, value in tables.facts(report).items())
    explained = [facts, *map(markdown_text, times.notes if times.rows else ())]
    parts = [
        MARK,
        f"### hpml-bench check: {markdown_text(tables.headline(report))}",
        _list([*tables.details(report), *tables.notes(report)]),
        *(markdown_table(shown) for shown in (times, changed) if shown.rows),
        markdown_text(tables.unchanged(report)),
        _folded("All counts without noise", markdown_table(counts)) if counts.rows else "",
        _folded("How it was measured", "\n\n".join(explained)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>"


def emit(report: CheckReport) -> None:
    """Print annotations and append the summary, where the check runs in a GitHub workflow; else do nothing."""
    if not on_github():
        return
    for line in commands(report):
        print(line, flush=True)
    if not (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        return
    content = markdown(report).encode()
    if len(content) > LONGEST_SUMMARY:
        content = content[:LONGEST_SUMMARY].decode(errors="ignore").encode() + b"\n\n(cut)\n"
    try:
        with Path(summary).open("ab") as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"GITHUB_STEP_SUMMARY: {Path(summary)} can't be written ({error.strerror})") from None


def emit_error(sentence: str) -> None:
    """Print an annotation with the error that ended a check, where it runs in a GitHub workflow."""
    if on_github():
        print(f"::error title=hpml-bench check::{_data(sanitize(redacted(sentence), 2000))}", flush=True)


def on_github() -> bool:
    """Return whether this runs in a GitHub workflow."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def commands(report: CheckReport) -> Iterator[str]:
    """Return a workflow command for each verdict that isn't PASS, and one for the outcome where all are."""
    counts: Counter[str] = Counter()
    for verdict in report.verdicts:
        if verdict.status == "PASS":
            continue
        kind = "error" if verdict.status == "FAIL" else "warning"
        counts[kind] += 1
        if counts[kind] <= MOST:
            title = f"{verdict.status} {sanitize(verdict.method, 60)}: {tables.metric(report, verdict)}"
            yield f"::{kind} title={_property(title)}::{_data(sanitize(verdict.detail, 600))}"
    if not counts:
        yield f"::notice title=hpml-bench check::{_data(tables.headline(report))}"


def _data(text: str) -> str:
    """Escape what follows the second `::`, so that it ends with its line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a property's value, which a comma or colon would end."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
