"""Behaviour: every sentence that a page shows before a click is short."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lxml.html
import pandas as pd
import pytest

from helpers import rich_records
from helpers.made_tables import right_and_wrong
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.page import write
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.report.render import load, page_over, write_page, write_report

REFERENCES = Path(__file__).parents[2] / "reports" / "reference"
SUITES = sorted(path.parent.name for path in REFERENCES.glob("*/report.md"))
LONGEST = 20
"""Words in a sentence."""
ENDS = {
    "p", "li", "dd", "dt", "td", "th", "h1", "h2", "h3", "caption", "figcaption", "div", "summary", "button", "label",
}  # fmt: skip
"""Elements that end a sentence; parts of the set-up line, which are spans, end one too."""
UNREAD = {"script", "style", "svg", "head"}


def texts(of: Any) -> Iterator[str]:
    """Yield what a reader sees of an element outside folds, with a 0 where a sentence ends."""
    if of.tag in UNREAD:
        return
    end = "\0" * (of.tag in ENDS or (of.tag == "span" and of.getparent().get("class") == "setup"))
    yield end
    if of.tag != "details":
        yield of.text or ""
    for child in of.iterchildren("summary" if of.tag == "details" else None):
        yield from texts(child)
        if of.tag != "details":
            yield child.tail or ""
    yield end


def sentences(page: str) -> list[str]:
    """Return the sentences of a page outside its folds."""
    found = (" ".join(text.split()) for text in "".join(texts(lxml.html.fromstring(page))).split("\0"))
    return [one for text in found for one in re.split(r"(?<=[.!?])(?<!\b[Nn]o\.)\s+", text) if one]


def check(page: str, own: Sequence[str], least: int = 50) -> None:
    """Check the sentences of a page but for the description that its suite gives itself."""
    found = sentences(page)
    assert len(found) > least
    of_suites = {part for text in own for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split()))}
    prose = (sentence for sentence in found if not re.match(r"\w+ = ", sentence))  # a method's options are no sentence
    long = [sentence for sentence in prose if len(sentence.split()) > LONGEST and sentence not in of_suites]
    assert not long, long


@pytest.mark.parametrize("name", SUITES)
def test_published_pages_have_short_sentences(name: str) -> None:
    """Committed pages: of every kind of task, with and without verdicts."""
    page = (REFERENCES / name / "report.html").read_text(encoding="utf-8")
    check(page, [load(REFERENCES / name).description])


def test_a_page_with_everything_has_short_sentences(tmp_path: Path) -> None:
    """A sweep with failures, several ranks, jobs, foreign runs and further metrics."""
    source = rich_records.write(tmp_path / "records")
    write_report(source, tmp_path / "report", ("html",))
    check((tmp_path / "report" / "report.html").read_text(encoding="utf-8"), [load(source).description])


def test_a_page_over_suites_has_short_sentences(tmp_path: Path) -> None:
    """Ranks over the suites that share methods."""
    suites = [load(REFERENCES / name) for name in ("quickstart", "minilm", "chat")]
    write_page(page_over(suites, tmp_path), tmp_path, ("html",))
    check((tmp_path / "report.html").read_text(encoding="utf-8"), [])


KINDS: dict[str, list[dict[str, Any]]] = {
    "rows": right_and_wrong({"alpha": 0.5, "beta": 0.51, "gamma": 0.8}),
    "seeds": right_and_wrong({"alpha": 0.5, "beta": 0.51, "gamma": 0.8}, seeds=range(4), dollars=3),
    "real": [line | {"score": line["score"] / 3} for line in right_and_wrong({"a": 0.5, "b": 0.6}, dollars=3)],
    "means": [{"system": name, "score": score, "rows": 900, "cost": 1} for name, score in (("a", 0.5), ("b", 0.6))],
    "few": [{"system": name, "score": score} for name, score in (("a", 0.5), ("b", 0.6))],
    "sets": [
        line for n in range(8) for line in right_and_wrong({"a": 0.5, "b": 0.51, "c": 0.8}, seed=n, dataset=f"d{n}")
    ],
}
"""Tables of scores, each of another scope of verdicts."""


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_systems_have_short_sentences(kind: str, tmp_path: Path) -> None:
    """Pages of `compare`, of every scope, with and without a test, and a range."""
    bounds = (0.0, 1.0) if kind in {"rows", "means", "sets"} else None
    write(assemble([of_frame(pd.DataFrame(KINDS[kind]))], bounds=bounds), tmp_path, ("html",), 0.02)
    for path in tmp_path.rglob("report.html"):
        check(path.read_text(encoding="utf-8"), [], least=30)


def test_long_sentences_are_noticed() -> None:
    """Outside folds, in the open part of a fold, and over marks of emphasis; not inside."""
    long = f"<b>a</b> {'b ' * 20}c."
    page = f"<p>{'<i>x</i>. ' * 60}</p>"
    check(f"{page}<details><summary>s</summary><p>{long}</p></details>", [])
    for shown in (f"<p>{long}</p>", f"<details><summary>{long}</summary></details>"):
        with pytest.raises(AssertionError, match="b b b"):
            check(page + shown, [])
