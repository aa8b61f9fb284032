"""`run-all --prior`: what an earlier suite lends is in every record, before the first result."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from helpers import tiny
from helpers.commands import called
from hpml_bench import run_suite
from hpml_bench.judge.results import Results
from hpml_bench.records.load import load_records
from hpml_bench.suite.prior import Prior


def test_runs_declare_what_an_earlier_suite_lends(tmp_path: Path) -> None:
    """By the command, in jobs too, and from Python; the folder it came from may go, and both say
    what it was.
    """
    suite = tiny.local_suite(tmp_path, 240, steps=2, test_samples=100, world_size=1)
    out = ("--out", tmp_path / "out", "--wandb", "off", "--seeds", "3")
    called("run-all", suite, *out, status=0)
    later = suite.with_name("later.yaml")
    shutil.copy(suite, later)
    done = called(
        "run-all", later, *out, "--prior", tmp_path / "out" / "colours", "--parallel", "1", status=0
    )
    assert "variance over seeds estimated with that of colours (1 degree of freedom)" in done.output
    priors = [
        record.declared.prior
        for record in load_records(tmp_path / "out" / "later").records
        if record.declared
    ]
    assert len(priors) == 6
    assert all(prior is not None and prior.names == ("colours",) for prior in priors)
    assert [
        one.prior for one in Results.load(tmp_path / "out" / "later").verdicts.score[0].evidence
    ] == [1, 1]
    assert "earlier suites: colours" in (tmp_path / "out" / "later" / "report.md").read_text()
    shutil.rmtree(tmp_path / "out" / "colours")
    run_suite(str(later), out=tmp_path / "out", seeds=4, report=False)
    again = [
        record.declared.prior
        for record in load_records(tmp_path / "out" / "later").records
        if record.declared
    ]
    assert len(again) == 8
    assert {prior == priors[0] for prior in again} == {True}


LENT = {
    "score": "accuracy",
    "suites": [{"suite": "earlier", "digest": "a" * 12}],
    "pairs": [
        {"methods": ["lora", "head"], "suites": ["earlier"], "variance": 1e-4, "freedom": 1.0}
    ],
}


def test_a_suite_file_lends_itself_nothing(tmp_path: Path) -> None:
    """A sweep takes lent variance from results that `--prior` names, and never from the file
    that it runs.
    """
    suite = tiny.local_suite(tmp_path, 240, steps=1, test_samples=100, world_size=1)
    by_hand = suite.with_name("by-hand.yaml")
    by_hand.write_text(suite.read_text() + f"\nprior: {json.dumps(LENT)}\n")
    done = called("run-all", by_hand, "--out", tmp_path / "out", status=2)
    assert "prior is no setting: run-all --prior DIR reads it" in " ".join(done.output.split())
    assert not (tmp_path / "out" / "by-hand").exists()
    called("preview", by_hand, status=0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"suites": []}, "at least 1 item"),
        ({"pairs": []}, "at least 1 item"),
        ({"pairs": [LENT["pairs"][0] | {"suites": []}]}, "at least 1 item"),
        (
            {"pairs": [LENT["pairs"][0] | {"suites": ["another"]}]},
            "names other suites than those that lend",
        ),
        (
            {"pairs": [LENT["pairs"][0] | {"freedom": 2.0}]},
            "has 2 degrees of freedom, and each suite lends at most one",
        ),
        (
            {"pairs": [LENT["pairs"][0] | {"suites": ["earlier", "earlier"], "freedom": 2.0}]},
            "names other suites",
        ),
    ],
)
def test_nothing_is_lent_without_a_lender(changes: dict[str, object], why: str) -> None:
    """Each pair names suites that lend, and each of these lends one degree of freedom."""
    assert Prior.model_validate(LENT).names == ("earlier",)
    with pytest.raises(ValidationError, match=why):
        Prior.model_validate(LENT | changes)
