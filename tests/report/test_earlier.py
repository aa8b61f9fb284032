"""Variance over seeds that earlier suites lend: what is read of their folders, and the page that
is made with it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from audit import answer
from audit.study import read_study

from helpers import made_records
from helpers.made_records import in_suite, record, sweep
from hpml_bench import statistics
from hpml_bench.judge.earlier import prior_of
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.page.answer.words import setup_line
from hpml_bench.page.render import page_of, write_report
from hpml_bench.records.files import SUITE
from hpml_bench.records.run import Declared, RunRecord
from hpml_bench.statistics import OverSeedsAndRows
from hpml_bench.suite.prior import Prior
from hpml_bench.suite.settings import DatasetSpec
from hpml_bench.suite.suite import Margin, MethodEntry, Suite, Until
from hpml_bench.sweep.prior import with_prior
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system.errors import UserError
from hpml_bench.verify.verify import verify

KINDS = {"lora": "lora", "full": "full"}
SCORE = "test_accuracy"


def earlier(
    folder: Path,
    name: str,
    methods: tuple[str, ...] = ("lora", "full"),
    seeds: int = 4,
    rows: int = 600,
) -> Path:
    """Write results of an earlier suite."""
    data = DatasetSpec(name="newswire", options={"p": 0.5})
    return made_records.write(
        folder / name, [in_suite(run, name, data) for run in sweep(methods, seeds)], rows=rows
    )


def declared(runs: list[RunRecord], prior: Prior | None, **more: Any) -> list[RunRecord]:
    """Return runs as a suite made them that earlier ones lend to."""
    return [
        run.model_copy(update={"declared": Declared(seeds=3, margin=Margin(), prior=prior, **more)})
        for run in runs
    ]


def evidence_of(folder: Path) -> OverSeedsAndRows:
    """Return what a folder says of its pair."""
    (pair,) = Results.load(folder).verdicts.score
    (own,) = (one for one in pair.evidence if isinstance(one, OverSeedsAndRows))
    return own


def test_a_folder_lends_each_pairs_variance(tmp_path: Path) -> None:
    """Of the methods that the suite has, by name and kind, pooled over the folders that have
    both.
    """
    one, other = (
        earlier(tmp_path, "one"),
        earlier(tmp_path, "other", ("full", "head", "lora"), 3, 300),
    )
    prior = prior_of([one, other], "example", {**KINDS, "head": "adapter", "peft": "peft"}, SCORE)
    assert prior.names == ("one", "other")
    (pair,) = prior.pairs
    assert pair.methods == ("lora", "full")
    assert pair.suites == ("one", "other")
    two = made_records.write(tmp_path / "two", sweep(("lora", "full"), 3), rows=300)
    assert (pair.variance, pair.freedom) == pytest.approx(
        statistics.lend([evidence_of(one), evidence_of(two)])
    )
    assert str(prior) == "one, other (2 degrees of freedom)"
    assert str(prior_of([one], "example", KINDS, SCORE)) == "one (1 degree of freedom)"


def test_of_a_race_the_first_round_lends(tmp_path: Path) -> None:
    """It ends where noise happens to look small; how many seeds its first round has was fixed
    before.
    """
    runs = [
        in_suite(run, "raced", DatasetSpec(name="newswire", options={"p": 0.5}))
        for run in sweep(("lora", "full"), 5)
    ]
    raced = made_records.write(tmp_path / "raced", declared(runs, None, until=Until(rounds=(3, 5))))
    fixed = earlier(tmp_path, "fixed", seeds=3, rows=1000)
    variance = [
        prior_of([folder], "example", KINDS, SCORE).pairs[0].variance for folder in (raced, fixed)
    ]
    assert variance[0] == pytest.approx(variance[1])


def test_what_lends_nothing_is_refused(tmp_path: Path) -> None:
    """The suite itself, one given twice, another score, no pair with three seeds: a sentence
    each.
    """
    one, few = earlier(tmp_path, "one"), earlier(tmp_path, "few", seeds=2)
    for folders, name, score, why in (
        ([one], "one", SCORE, "this suite itself"),
        ([one, one], "example", SCORE, "given already"),
        ([one], "example", "test_f1", "compared by test_accuracy, and those of example by test_f1"),
        ([few], "example", SCORE, "no two methods of example"),
        ([tmp_path / "none"], "example", SCORE, "holds no recorded run"),
    ):
        with pytest.raises(UserError, match=why):
            prior_of(folders, name, KINDS, score)


@pytest.fixture
def lent(tmp_path: Path) -> Prior:
    return prior_of(
        [earlier(tmp_path, "one"), earlier(tmp_path, "other", seeds=3)], "example", KINDS, SCORE
    )


def test_a_page_is_made_with_what_its_first_run_declares(lent: Prior, tmp_path: Path) -> None:
    """Scores have the lent degrees of freedom, costs none, and the page says so; later
    declarations decide nothing.
    """
    runs = sweep(("lora", "full"), 3)
    alone = Results.load(made_records.write(tmp_path / "alone", declared(runs, None)))
    mixed = [*declared(runs[:1], lent), *declared(runs[1:], None)]
    results = Results.load(made_records.write(tmp_path / "example", mixed))
    (pair,), (own,) = results.verdicts.score, alone.verdicts.score
    assert [one.prior for one in pair.evidence] == [2, 2]
    assert pair.p != own.p
    assert results.verdicts.costs == alone.verdicts.costs
    said = (
        "The variance over seeds is estimated with that of earlier suites: one, other (2 degrees "
        "of freedom)."
    )
    write_report(results.folder, None, ("md",))
    page = (results.folder / "report.md").read_text()
    assert page.count(said) == 2, "where the words are explained, and beside the pairs"
    assert (
        "variance over seeds estimated with that of one, other (2 degrees of freedom)"
        in setup_line(answer_of(results))
    )
    assert "earlier suites" not in str(page_of(alone))
    assert answer_of(alone).setup.lent is None
    late = [*declared(runs[:1], None), *declared(runs[1:], lent)]
    assert Results.load(made_records.write(tmp_path / "late", late)).verdicts.score[0].p == own.p


def test_another_score_has_no_use_for_it(lent: Prior, tmp_path: Path) -> None:
    """A variance of another score's differences isn't of this one's."""
    other = lent.model_copy(update={"score": "test_f1"})
    results = Results.load(
        made_records.write(tmp_path / "example", declared(sweep(("lora", "full"), 3), other))
    )
    assert [one.prior for one in results.verdicts.score[0].evidence] == [0, 0]


@pytest.mark.parametrize("methods", [("lora", "full"), ("lora", "full", "head", "adapter")])
def test_the_auditor_recomputes_the_page(
    methods: tuple[str, ...], lent: Prior, tmp_path: Path
) -> None:
    """Of the record alone, of two methods and of four that share their variances as well."""
    folder = made_records.write(tmp_path / "example", declared(sweep(methods, 3), lent))
    entries = dict.fromkeys(methods, MethodEntry())
    suite = Suite(
        name="example", seeds=3, settings=made_records.SETTINGS, methods=entries, prior=lent
    )
    (folder / SUITE).write_text(suite.model_dump_json())
    write_report(folder, None, ("md",))
    given = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert answer.compared(given, answer.answer_of(read_study(folder)))[1] == []
    assert any(one.prior == 2 for c in Results.load(folder).verdicts.score for one in c.evidence)


def request(folder: Path, **more: Any) -> SweepRequest:
    """Return the request of a suite of both methods."""
    methods = {"lora": MethodEntry(), "full": MethodEntry()}
    return SweepRequest(
        Suite(name="example", seeds=3, settings=made_records.SETTINGS, methods=methods),
        folder,
        **more,
    )


def test_a_prior_is_declared_before_the_first_run(tmp_path: Path) -> None:
    """It is read then and stays as it was: the same command, or one without it, goes on; another
    is refused.
    """
    one, other = earlier(tmp_path, "one"), earlier(tmp_path, "other")
    first = with_prior(request(tmp_path), [one]).suite.prior
    assert first == prior_of([one], "example", KINDS, SCORE)
    made_records.write(tmp_path / "example", declared([record("lora", 0)], first))
    shutil.rmtree(next(one.glob("lora-s3-*")))  # which changes what it would lend
    for given in ([one], []):
        assert with_prior(request(tmp_path), given).suite.prior == first
    for given in ([other], [one, other]):
        with pytest.raises(UserError, match="declares that of one, which counts for all runs"):
            with_prior(request(tmp_path), given)
    assert with_prior(request(tmp_path, fresh=True), [other]).suite.prior != first


def test_a_folder_that_began_without_goes_on_without(tmp_path: Path) -> None:
    """After its first run it is too late."""
    made_records.write(tmp_path / "example", declared([record("lora", 0)], None))
    with pytest.raises(UserError, match="declares none of earlier suites"):
        with_prior(request(tmp_path), [earlier(tmp_path, "one")])
    assert with_prior(request(tmp_path), []).suite.prior is None


def test_verify_finds_an_edited_prior(lent: Prior, tmp_path: Path) -> None:
    """Runs and suite.json must declare the same."""
    folder = made_records.write(tmp_path / "example", declared(sweep(("lora", "full"), 3), lent))
    suite = request(tmp_path).suite
    for prior, findings in ((lent, 0), (None, 6)):
        (folder / SUITE).write_text(suite.model_copy(update={"prior": prior}).model_dump_json())
        found = [
            check
            for check in verify(folder).checks
            if "variance of earlier suites" in check.finding
        ]
        assert len(found) == findings
