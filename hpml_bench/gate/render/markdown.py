"""A receipt in Markdown, for a pull request or a job's summary."""

from __future__ import annotations

from collections.abc import Iterable

from hpml_bench.gate.records import Receipt
from hpml_bench.gate.render import tables
from hpml_bench.report.export import markdown_table, markdown_text

MARK = "<!-- hpml-bench check -->"
"""Begins the text, so that a bot finds its own comment and updates it."""


def render(receipt: Receipt) -> str:
    """Return the text: outcome, what is wrong, step times; the counts and the circumstances folded."""
    times, counts = tables.step_times(receipt), tables.counted(receipt)
    changed = tables.counted(receipt, changed_only=True)
    parts = [MARK, f"### hpml-bench check: {markdown_text(tables.headline(receipt))}"]
    parts.append(_list([*tables.details(receipt), *tables.notes(receipt)]))
    if times.rows:
        parts.append(markdown_table(times))
    if changed.rows:
        parts.append(markdown_table(changed))
    parts.append(markdown_text(tables.unchanged(receipt) or ""))
    if counts.rows:
        parts.append(_folded("All counts without noise", markdown_table(counts)))
    facts = _list(f"{key}: {value}" for key, value in tables.facts(receipt).items())
    parts.append(
        _folded("How it was measured", "\n\n".join([facts, *map(markdown_text, times.notes if times.rows else ())]))
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>"
