"""Behaviour: the answer's numbers are the page's: its means, verdicts and selection, in the units that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_sections import load

from helpers.made_records import METHODS, failed, sweep
from hpml_bench.report.answer import words
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.seed_plan import plan
from hpml_bench.system.errors import UserError


def test_relations_follow_winners(tmp_path: Path) -> None:
    """A relation is seen from both sides alike, and sizes that are exact decide themselves."""
    answer = answer_of(load(tmp_path, sweep()))
    mirrored = {"better": "worse", "worse": "better", "open": "open", "equal": "equal", "untested": "untested"}
    names = [method.name for method in answer.methods]
    for by in ("score", "time", "memory", "size"):
        for a in names:
            for b in (n for n in names if n != a):
                assert answer.relation(by, b, a) == mirrored[answer.relation(by, a, b)]
    assert answer.best("size") == (min(names, key=lambda n: answer.by_name[n].values["saved_bytes"].mean),)


def test_no_compared_run_leaves_an_answer_without_methods(tmp_path: Path) -> None:
    """Where every run failed the answer says so, and counts the failures."""
    answer = answer_of(load(tmp_path, [failed("lora", seed, "diverged", "loss is NaN") for seed in range(3)]))
    assert answer.methods == ()
    assert words.headline(answer) == "No run ended well, so there is nothing to compare."
    assert words.banner(answer) == "3 of 3 runs failed (loss not finite)."
    assert not any(part.startswith("0 ") for part in words.setup_line(answer)), "no rows and seeds, so none are named"


def test_methods_that_lack_seeds_have_means_over_shared_ones(tmp_path: Path) -> None:
    """Means are over the seeds that all methods share, and the set-up line says so."""
    kept = [r for r in sweep(["lora", "full"]) if (r.spec.method.name, r.spec.seed) != ("lora", 4)]
    answer = answer_of(load(tmp_path, kept))
    assert answer.shared == 4
    assert all(len(method.values["score"].runs) == 4 for method in answer.methods)
    assert "5 seeds, means over the 4 that all share" in words.setup_line(answer)
    assert "4 of 5 seeds" in words.verdict(answer, "lora").more
    assert not any("seeds" in text for text in words.verdict(answer, "full").more)
    diverged = failed("lora", 4, "diverged", "loss is NaN")
    ended = answer_of(load(tmp_path / "failed", [*kept, diverged]))
    assert words.verdict(ended, "lora").in_full.endswith("1 run failed"), "its failed run is the seed that it lacks"
    fewer = [r for r in kept if (r.spec.method.name, r.spec.seed) != ("lora", 3)]
    both = words.verdict(answer_of(load(tmp_path / "both", [*fewer, diverged])), "lora")
    assert both.in_full.endswith("3 of 5 seeds; 1 run failed")


@pytest.mark.parametrize("quiet", [0, 1])
def test_costs_of_neighbours_rank_nothing(quiet: int, tmp_path: Path) -> None:
    """Runs that shared a host have costs without verdicts, also where one had it alone; the answer says why."""
    beside = [r.model_copy(update={"neighbours": ("other",) * (n >= quiet)}) for n, r in enumerate(sweep(METHODS[:2]))]
    answer = answer_of(load(tmp_path, beside))
    assert answer.unranked == "runs had neighbours on their host"
    assert set(answer.pairs) == {"score"}
    assert all(axis.tested is None for axis in answer.axes)
    with pytest.raises(UserError, match="neighbours on their host"):
        plan(tmp_path, "train_seconds=3%")
    assert "tell no hours" in " ".join(plan(tmp_path, "accuracy=2pp").sentences)
