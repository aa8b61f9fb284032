"""What the suite declared before a run: how many looks a page is one of, and the margins that decide."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_sections import load, said

from helpers.made_records import record, sweep
from hpml_bench import statistics
from hpml_bench.records.files import SUITE
from hpml_bench.records.run import Declared, RunRecord
from hpml_bench.report.looks import FILE, look_at
from hpml_bench.suite.suite import Margin, MethodEntry, Suite
from hpml_bench.system.errors import UserError


def declared(runs: list[RunRecord], seeds: int, margin: Margin = Margin()) -> list[RunRecord]:  # noqa: B008 - frozen
    """Return the runs as a suite of so many seeds made them."""
    return [run.model_copy(update={"declared": Declared(seeds=seeds, margin=margin)}) for run in runs]


def both(*seeds: int) -> list[RunRecord]:
    """Return runs of both methods with further seeds."""
    return [record(m, s, 2 * s + n) for s in seeds for n, m in enumerate(("lora", "full"))]


def in_stages(*stages: int) -> list[RunRecord]:
    """Return runs of two methods whose suite was declared with more seeds each time."""
    runs, done = [], 0
    for seeds in stages:
        runs += declared(both(*range(done, seeds)), seeds)
        done = max(done, seeds)
    return runs


@pytest.mark.parametrize(("runs", "looks"), [
    *((in_stages(*stages), n) for stages, n in (((5,), 1), ((5, 7, 10), 3), ((2, 5), 1), ((5, 5), 1), ((3, 5), 2))),
    ([*sweep(["lora", "full"], 5), *declared(both(5, 6, 7, 8, 9), 10)], 2),
    ([*in_stages(5), *declared(both(5, 6), 5)], 3),
], ids=["one", "three", "too few before", "as many", "three seeds", "undeclared before", "one by one"])  # fmt: skip
def test_seeds_added_later_are_another_look(runs: list[RunRecord], looks: int, tmp_path: Path) -> None:
    """Each declaration of more seeds counts, from the first that could give a verdict on; the page says which it is."""
    results = load(tmp_path, runs)
    assert results.look == looks
    assert f"look {looks} at these results" in said("comparisons", results)


def test_later_looks_have_less_to_spend(tmp_path: Path) -> None:
    """The same runs, had seeds been added: p after adjustment is larger; all looks together spend 5 %."""
    once, again = load(tmp_path / "once", in_stages(7)), load(tmp_path / "again", in_stages(5, 7))
    least = 1.0
    for metric in ("test_accuracy", "train_seconds"):
        for first, second in zip(once.comparisons(metric), again.comparisons(metric), strict=True):
            assert first.p == second.p
            assert first.p_adjusted is not None
            assert second.p_adjusted == pytest.approx(min(1.0, first.p_adjusted * 0.9 / 0.05))
            least = min(least, first.p_adjusted)
    assert least < 0.05
    assert sum(map(statistics.spent_at, range(1, 60))) == pytest.approx(1.0)


def test_a_margin_edited_afterwards_decides_nothing(tmp_path: Path) -> None:
    """The margins declared with the first run stay; the page says that the suite's differ now."""
    runs = in_stages(5)
    for name, margin in (("same", Margin()), ("wide", Margin(quality=0.5, cost=0.9))):
        folder = tmp_path / name
        folder.mkdir()
        entries = {"lora": MethodEntry(), "full": MethodEntry()}
        suite = Suite(name="example", settings=runs[0].spec.settings, margin=margin, methods=entries)
        (folder / SUITE).write_text(suite.model_dump_json())
        results = load(folder, runs)
        assert results.margin == Margin()
        assert results.quality_margin == 0.01
        assert ("edited after its first run" in said("cautions", results)) == (name == "wide")


# The looks that a page's folder keeps


def test_each_new_digest_is_the_next_look(tmp_path: Path) -> None:
    """A digest that was there keeps its number, in a folder that the first look makes."""
    folder = tmp_path / "pages" / "over"
    assert [look_at(folder, digest) for digest in "abacba"] == [1, 2, 1, 3, 2, 1]
    assert look_at(tmp_path, "b") == 1  # another folder has looks of its own
    assert [path.name for path in folder.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", "[" * 100_000], ids=repr)
def test_a_broken_list_is_refused(text: str, tmp_path: Path) -> None:
    """Else a later look would count as the first; the file stays as it is."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=f"{FILE} is no list of looks"):
        look_at(tmp_path, "a")
    assert (tmp_path / FILE).read_text() == text


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """One sentence where a file stands in its place."""
    (tmp_path / "page").write_text("")
    with pytest.raises(UserError, match=r"looks\.json can't be written"):
        look_at(tmp_path / "page", "a")
