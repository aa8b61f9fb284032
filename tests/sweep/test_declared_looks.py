"""Looks that are declared before the first run: how the records keep them, what each may use,
and what is refused.
"""

from pathlib import Path

import pytest
from pydantic import ValidationError

from helpers import made_records
from helpers.made_records import sweep
from hpml_bench import statistics
from hpml_bench.judge.results import Results
from hpml_bench.records.run import Declared
from hpml_bench.suite.suite import Margin, Suite, Until, load_suite
from hpml_bench.sweep.race import rounds
from hpml_bench.sweep.request import SweepRequest, places
from hpml_bench.system.errors import UserError


def folder_of(tmp_path: Path, looks: int | None, stages: tuple[int, ...]) -> Path:
    """Return the folder of a suite of two methods that was declared with so many seeds at a
    time.
    """
    runs, before = [], 0
    for seeds in stages:
        declared = Declared(seeds=seeds, margin=Margin(), looks=looks)
        new = [run for run in sweep(["lora", "full"], seeds) if run.spec.seed >= before]
        runs += [run.model_copy(update={"declared": declared}) for run in new]
        before = seeds
    return made_records.write(tmp_path / "example", runs)


def test_declared_looks_have_equal_shares(tmp_path: Path) -> None:
    """Of three declared looks the second has a third of 95 %; where none is declared, two thirds
    of what is left.
    """
    declared, undeclared = (
        Results.load(folder_of(tmp_path / str(looks), looks, (3, 5))) for looks in (3, None)
    )
    assert (declared.verdicts.look, declared.aligned.declared_looks) == (2, 3)
    assert (undeclared.verdicts.look, undeclared.aligned.declared_looks) == (2, 0)
    shares = [
        statistics.spent_at(results.look, results.aligned.declared_looks)
        for results in (declared, undeclared)
    ]
    assert shares == pytest.approx([0.95 / 3, 2 / 9])
    for one, other in zip(declared.verdicts.score, undeclared.verdicts.score, strict=True):
        assert one.p == other.p
        assert (other.p_adjusted or 0) == pytest.approx(
            min(1, (one.p_adjusted or 0) * shares[0] / shares[1])
        )


def test_a_suite_declares_its_looks_with_each_run() -> None:
    """The number is in the declaration of each run, and left out of records where there is none."""
    suite = load_suite("quickstart").asked(None, None, None, 3)
    (place, *_) = places(suite.runs(), suite).values()
    assert place.declared.looks == 3
    assert "looks" not in Declared(seeds=3, margin=Margin()).model_dump(mode="json")


def test_another_number_of_looks_is_refused(tmp_path: Path) -> None:
    """The number of the first run counts; the same one, or none, goes on."""
    folder = folder_of(tmp_path, None, (3,))
    suite = load_suite("quickstart").model_copy(update={"name": folder.name})
    for looks in (None, 3):
        request = SweepRequest(suite.asked(None, None, 5, looks), folder.parent)
        if looks is None:
            assert list(rounds(request, print)) == [request]
            continue
        with pytest.raises(
            UserError, match="its first run declares no looks, and looks count as declared"
        ):
            list(rounds(request, print))


def test_looks_go_without_until() -> None:
    """The rounds of a race are declared looks already."""
    with pytest.raises(UserError, match="--looks goes without --until"):
        load_suite("quickstart").asked("decided", None, None, 3)
    whole = load_suite("quickstart").model_dump(exclude={"looks", "until"})
    with pytest.raises(ValidationError, match="looks go without until"):
        Suite.model_validate(whole | {"looks": 3, "until": Until()})
