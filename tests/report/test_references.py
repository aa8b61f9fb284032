"""Committed reports: records give them, README shows them; and sentences of pages are short."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lxml.html
import pandas as pd
import pytest
from report_sections import said

from helpers import rich_records
from helpers.made_tables import right_and_wrong
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.page import write
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.from_results import answer_of
from hpml_bench.page.render import load, page_over, write_page, write_report
from hpml_bench.records.files import SUITE
from hpml_bench.select import predictions
from hpml_bench.verify import figures
from hpml_bench.verify.files import same

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"


def test_only_the_last_digits_of_a_number_may_differ() -> None:
    """A word, a sign, a number more and a tenth digit are noticed; a fifteenth isn't."""
    text = "lora: 94.196857114426 points"
    assert same(text, "lora: 94.19685711442625 points")
    assert not same(text, "Lora: 94.196857114426 points")
    assert not same(text, "lora: -94.196857114426 points")
    assert not same(text, "lora: 94.196857124426 points")
    assert not same(text, "lora: 94.196857114426 94.196857114426 points")
    for shown, other in (("1.50 s", "1.5 s"), ("-0.0", "0.0"), ("2.50e+03", "2500.0")):
        assert not same(shown, other)


def test_the_readme_shows_committed_answers() -> None:
    """README's tables and sentences are those of the committed reports of minilm and quickstart."""
    readme = (REFERENCE.parents[1] / "README.md").read_text(encoding="utf-8")
    for name in ("minilm", "quickstart"):
        lines = (REFERENCE / name / "report.md").read_text(encoding="utf-8").splitlines()
        first = next(at for at, line in enumerate(lines) if line.startswith("| method |"))
        assert "\n".join(lines[first : lines.index("", first)]) in readme
        assert lines[2].strip("*") in readme


@pytest.mark.parametrize("name", sorted(path.parent.name for path in REFERENCE.glob("*/report.md")))
def test_committed_reports_are_those_of_their_records(name: str, tmp_path: Path) -> None:
    """Each page, picture and table, byte for byte; and all that is committed is made."""
    committed = REFERENCE / name
    made = write_report(committed, tmp_path, ("html", "md", "csv"))
    kept = [
        *committed.glob("report.[hjm]*"),
        *committed.glob("tables/*"),
        *committed.glob("figures/*.svg"),
    ]
    names = {path.relative_to(tmp_path) for path in made}
    assert names == {path.relative_to(committed) for path in kept}
    changed = [
        str(file)
        for file in sorted(names)
        if (tmp_path / file).read_bytes() != (committed / file).read_bytes()
    ]
    assert not changed, (
        f"hpml-bench report reports/reference/{name} --format html,md,csv writes others"
    )


@pytest.mark.parametrize("recorded", [True, False])
def test_without_a_scorer_s_package_recorded_scores_are_used(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer, and a caution with what to install; files without recorded scores of rows
    are set apart.
    """
    with_package = answer_of(load(REFERENCE / "faq"))
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    if not recorded:
        read = predictions.read_predictions
        monkeypatch.setattr(
            predictions, "read_predictions", lambda folder: replace(read(folder), scores=None)
        )
    results = load(REFERENCE / "faq")
    found = said("cautions", results)
    if recorded:
        assert answer_of(results) == with_package
        evidence: Any = SimpleNamespace(selection=results, excluded=lambda _: iter(()))
        (finding,) = figures.predictions(evidence)
        assert finding.state == "not checked"
        assert re.search(
            r"as the runs recorded them, not computed anew: the scorer rouge_l needs .*install",
            found,
        )
    else:
        assert not answer_of(results).methods
        assert "is missing, or can't be read or scored here" in said("failures", results)


# Sentences that a page shows before a click are short


LONGEST = 20
"""Words in a sentence."""
ENDS = {
    "p",
    "li",
    "dd",
    "dt",
    "td",
    "th",
    "h1",
    "h2",
    "h3",
    "caption",
    "figcaption",
    "div",
    "summary",
    "button",
    "label",
}
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


def check(page: str, own: Sequence[str], least: int = 50) -> None:
    """Check the sentences of a page outside its folds, but for the description that its suite
    gives itself.
    """
    ended = (
        " ".join(text.split()) for text in "".join(texts(lxml.html.fromstring(page))).split("\0")
    )
    found = [one for text in ended for one in re.split(r"(?<=[.!?])(?<!\b[Nn]o\.)\s+", text) if one]
    assert len(found) > least
    of_suites = {
        part for text in own for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split()))
    }
    prose = (
        sentence for sentence in found if not re.match(r"\w+ = ", sentence)
    )  # a method's options are no sentence
    long = [
        sentence
        for sentence in prose
        if len(sentence.split()) > LONGEST and sentence not in of_suites
    ]
    assert not long, long


@pytest.mark.parametrize("name", sorted(path.parent.name for path in REFERENCE.glob("*/report.md")))
def test_published_pages_have_short_sentences(name: str) -> None:
    """Committed pages: of every kind of task, with and without verdicts."""
    page = (REFERENCE / name / "report.html").read_text(encoding="utf-8")
    check(page, [json.loads((REFERENCE / name / SUITE).read_text(encoding="utf-8"))["description"]])


def test_made_pages_have_short_sentences(tmp_path: Path) -> None:
    """A sweep with failures, several ranks, jobs, foreign runs and further metrics; ranks over
    suites.
    """
    source = rich_records.write(tmp_path / "records")
    write_report(source, tmp_path / "report", ("html",))
    check(
        (tmp_path / "report" / "report.html").read_text(encoding="utf-8"),
        [load(source).description],
    )

    suites = [load(REFERENCE / name) for name in ("quickstart", "minilm", "chat")]
    write_page(page_over(suites, tmp_path), tmp_path, ("html",))
    check((tmp_path / "report.html").read_text(encoding="utf-8"), [])


KINDS: dict[str, list[dict[str, Any]]] = {
    "rows": right_and_wrong({"alpha": 0.5, "beta": 0.51, "gamma": 0.8}),
    "seeds": right_and_wrong({"alpha": 0.5, "beta": 0.51, "gamma": 0.8}, seeds=range(4), dollars=3),
    "real": [
        line | {"score": line["score"] / 3}
        for line in right_and_wrong({"a": 0.5, "b": 0.6}, dollars=3)
    ],
    "means": [
        {"system": name, "score": score, "rows": 900, "cost": 1}
        for name, score in (("a", 0.5), ("b", 0.6))
    ],
    "few": [{"system": name, "score": score} for name, score in (("a", 0.5), ("b", 0.6))],
    "sets": [
        line
        for n in range(8)
        for line in right_and_wrong({"a": 0.5, "b": 0.51, "c": 0.8}, seed=n, dataset=f"d{n}")
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
