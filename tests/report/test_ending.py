"""Why a sweep ends whose methods race, from its records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from helpers import made_records
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.inputs import read
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summarize import summarize
from hpml_bench.judge.verdicts import judge
from hpml_bench.page.render import page_of
from hpml_bench.page.seed_plan import plan
from hpml_bench.records.run import Declared
from hpml_bench.suite.suite import Margin, MethodEntry, Suite, Until
from hpml_bench.sweep.race import rounds
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system.errors import UserError

ROUNDS = (3, 5, 8)


def raced(
    folder: Path,
    means: dict[str, float],
    seeds: dict[str, int],
    question: Literal["decided", "costs"] = "decided",
    *,
    noise: float = 0.004,
    pace: float = 0.001,
    failed: tuple[tuple[str, int], ...] = (),
    of_suite: int = 5,
) -> Results:
    """Return the results of a race of methods with these mean accuracies and numbers of seeds."""
    declared = Declared(
        seeds=of_suite, margin=Margin(), until=Until(question=question, rounds=ROUNDS)
    )
    records = []
    runs = (
        (method, seed)
        for seed in range(max(seeds.values()))
        for method in means
        if seed < seeds[method]
    )
    for order, (method, seed) in enumerate(runs, 1):
        if (method, seed) in failed:
            lost = made_records.failed(
                method, seed, "oom_cuda", "no memory", order=order, declared=declared
            )
            records.append(lost)
            continue
        random = np.random.default_rng([seed, len(method), 5])
        own: dict[str, Any] = made_records.metrics(method, seed)
        own["test_accuracy"] = round(means[method] + noise * random.standard_normal(), 3)
        own["train_seconds"] = (own["train_seconds"] or 0) * float(
            np.exp(pace * random.standard_normal())
        )
        records.append(made_records.record(method, seed, order, metrics=own, declared=declared))
    return Results.load(made_records.write(folder, records))


LOST = tuple(("lora", seed) for seed in (1, 3, 4, 5, 6, 7))
FUTILE = (
    "full and lora aren't expected to be told apart with 8 seeds each, even if they differ by a "
    "standard error more than was measured with 5"
)
DECLARED = "full and lora have the 8 seeds that were declared, and can't be told apart"


@pytest.mark.parametrize(("means", "seeds", "how", "end"), [
    ((0.9, 0.7, 0.6), (3, 3, 3), {}, "full is shown to score best"),
    ((0.9, 0.9, 0.6), (2, 2, 2), {}, ""),
    ((0.8, 0.795, 0.5), (8, 8, 3), {"noise": 0.002}, DECLARED),
    ((0.8, 0.79), (3, 3), {"noise": 0.03}, ""),  # the noise of three seeds isn't known well enough
    ((0.8, 0.799), (5, 5), {"noise": 0.03}, FUTILE),
    ((0.9, 0.5), (3, 3), {"question": "costs"}, "full is shown to score best"),
    ((0.8, 0.8), (8, 8), {"question": "costs", "noise": 0.0005, "pace": 0.2}, DECLARED),
    ((0.9, 0.9, 0.5), (3, 3, 3), {"failed": LOST}, ""),  # of two shared seeds there is no verdict
    ((0.9, 0.9, 0.5), (5, 5, 3), {"failed": LOST}, ""),
    ((0.9, 0.9, 0.5), (8, 8, 3), {"failed": LOST}, DECLARED),
])  # fmt: skip
def test_why_it_ends(
    means: Sequence[float], seeds: Sequence[int], how: Any, end: str, tmp_path: Path
) -> None:
    """One method is left, the seeds are used up or can't decide, or it goes on; compare's answer
    is equal.
    """
    names = ("full", "lora", "head")
    results = raced(
        tmp_path,
        dict(zip(names, means, strict=False)),
        dict(zip(names, seeds, strict=False)),
        **how,
    )
    answer = answer_of(results)
    assert answer.ended == end
    assert answer.most_runs == len(means) * ROUNDS[-1]
    assert results.never_run == 0, "who has left lacks nothing"
    if "failed" not in how:
        (scores,) = assemble(read([tmp_path]))
        assert summarize(judge(scores)) == answer


@pytest.mark.parametrize(("of_suite", "added", "later"), [(20, 0, 0), (5, 0, 0), (5, 12, 1)])
def test_only_seeds_by_hand_are_further_looks(
    of_suite: int, added: int, later: int, tmp_path: Path
) -> None:
    """`seeds` of the suite declares nothing in a race; more seeds than its last round's end it."""
    means = {"full": 0.9, "adapter": 0.895}
    results = raced(tmp_path, means, dict.fromkeys(means, 8), of_suite=of_suite, noise=0.03)
    if added:
        by_hand = Declared(seeds=added, margin=Margin())
        made = [
            made_records.record(name, seed, 50 + seed, declared=by_hand)
            for name in means
            for seed in range(8, 12)
        ]
        results = Results.load(made_records.write(tmp_path, made))
    assert results.race
    assert results.race.later == later
    assert answer_of(results).look == 3 + later
    assert (
        not added or answer_of(results).ended == "no round was left when seeds were added by hand"
    )


def test_results_of_a_race_are_compared_alone(tmp_path: Path) -> None:
    """Its methods have other seeds than those of any other folder, and looks of its own."""
    raced(tmp_path / "race", {"full": 0.9, "lora": 0.89}, {"full": 3, "lora": 3})
    made_records.write(tmp_path / "plain", made_records.sweep(["head"], seeds=3))
    with pytest.raises(UserError, match="results of a sweep with --until are compared alone"):
        assemble(read([tmp_path / "race", tmp_path / "plain"]))


def test_a_page_is_of_complete_rounds(tmp_path: Path) -> None:
    """One mean of each method, over all its runs of complete rounds; captions say so; runs under
    way enter nothing.
    """
    seeds = {"full": 5, "lora": 5, "head": 3}
    means = {"full": 0.9, "lora": 0.895, "head": 0.5}
    whole = raced(tmp_path / "w", means, seeds)
    under_way = raced(tmp_path / "u", means, seeds | {"full": 6})
    for results in (whole, under_way):
        answer, page = answer_of(results), str(page_of(results))
        assert {method.name: method.seeds for method in answer.methods} == seeds
        for name, mean in results.means(results.quality).items():
            assert answer.value(name, "score") == pytest.approx(100 * mean)
            assert mean == pytest.approx(np.mean([*results.values(results.quality)[name].values()]))
        assert "Means over each method's own seeds" in page
        assert "lacks seed" not in page
        assert "seeds fixed before" not in page
        assert "looks declared before" in page
    assert answer_of(whole).pairs == answer_of(under_way).pairs
    first = raced(tmp_path / "f", means, {"full": 3, "lora": 3, "head": 2})
    assert answer_of(first).untested == "the first round isn't complete"
    assert "fewer than 3 seeds can't be ranked" not in str(page_of(first))


def test_plan_counts_the_looks_that_were_taken(tmp_path: Path) -> None:
    """The next look has the share of a declared one, or less; pairs of methods that left aren't
    planned.
    """
    means = {"full": 0.8, "lora": 0.797, "head": 0.5}
    for seeds, share in ((5, "32 %"), (8, "3.3 %")):
        folder = raced(
            tmp_path / str(seeds), means, {"full": seeds, "lora": seeds, "head": 3}, noise=0.01
        ).folder
        made = plan(folder, "accuracy=0.5pp")
        assert f"may use {share} of its chance" in " ".join(made.sentences)
        assert [row[0] for row in made.table.rows] == ["full − lora"]
    done = raced(tmp_path / "done", {"full": 0.9, "lora": 0.5}, {"full": 3, "lora": 3}).folder
    with pytest.raises(UserError, match="one method is left of the race"):
        plan(done, "accuracy=0.5pp")


def suite_of(*methods: str) -> Suite:
    """Return a suite of methods that race."""
    return Suite(
        name="example",
        settings=made_records.SETTINGS,
        until=Until(rounds=ROUNDS),
        methods={name: MethodEntry() for name in methods},
    )


@pytest.mark.parametrize(
    ("seeds", "failed", "asked", "last"),
    [
        ({"full": 3, "adapter": 3}, (), range(3, 5), "aren't all done"),
        ({"full": 3, "lora": 3, "head": 3}, (("lora", 1),), range(3, 5), "aren't all done"),
        ({"full": 3, "lora": 2}, (), range(3), "aren't all done"),
        ({"full": 3, "lora": 3}, (("lora", 1),), range(3), "no two methods have scores of 3 seeds"),
        (
            {"full": 3, "lora": 3},
            tuple(("lora", seed) for seed in range(3)),
            range(3),
            "takes two methods with scores",
        ),
    ],
)
def test_a_round_asks_for_its_own_seeds(
    seeds: dict[str, int],
    failed: tuple[tuple[str, int], ...],
    asked: range,
    last: str,
    tmp_path: Path,
) -> None:
    """Failed runs of complete rounds aren't repeated, which would change what was looked at; why
    it ends is said.
    """
    raced(tmp_path / "example", dict.fromkeys(seeds, 0.9), seeds, failed=failed)
    said: list[object] = []
    request = SweepRequest(suite_of(*seeds), tmp_path)
    (part,) = rounds(request, said.append)  # which nobody runs
    assert (part.methods, part.seeds, part.limits) == (tuple(seeds), tuple(asked), request.limits)
    assert part.began is not None
    assert last in str(said[-1])


def test_a_method_that_answers_alike_is_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its one run completes every round, and no later one asks for it."""
    for place in ("sweep.race", "select.compared", "suite.suite"):
        monkeypatch.setattr(
            f"hpml_bench.{place}.alike", lambda settings, method: method.name == "head"
        )
    means = {"full": 0.9, "adapter": 0.899, "head": 0.898}
    for once in ({}, {"failed": (("head", 0),)}):
        out = tmp_path / str(len(once))
        raced(out / "example", means, {"full": 3, "adapter": 3, "head": 1}, noise=0.03, **once)
        part = next(rounds(SweepRequest(suite_of(*means), out), print))
        assert (part.methods, part.seeds) == (("full", "adapter"), (3, 4))
