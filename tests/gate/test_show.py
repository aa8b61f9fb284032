"""A report on the terminal, and what all renderings share."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from helpers import made_checks
from hpml_bench.cli.gate import print_report
from hpml_bench.gate.records import CheckReport, Verdict
from hpml_bench.gate.render import tables


def printed(report: CheckReport, width: int = 140) -> str:
    """Return what is printed on a console of this width, colours left out."""
    console = Console(width=width, file=io.StringIO())
    print_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_last_line_is_the_outcome() -> None:
    """It begins with the status and names what is wrong."""
    last = printed(made_checks.report({"lora": 0.05, "adapter": 0.0}, grown=3)).splitlines()[-1]
    assert last == "FAIL: slower or heavier: lora (step time) and lora (host synchronisations)"
    assert "--strict" not in printed(made_checks.report())
    assert printed(made_checks.report()).splitlines()[-1] == (
        "PASS: nothing got slower or heavier in lora, prompt_tuning and adapter"
    )


def test_what_was_not_measured_is_not_ruled_out() -> None:
    """Counts alone say nothing of time, and times nothing of counts."""
    made = made_checks.report({"lora": 0.0})
    of_time, of_counts = made.verdicts[:1], made.verdicts[1:]
    heavier = made.model_copy(update={"verdicts": of_counts, "blocks": (), "pairs": 0})
    assert tables.headline(heavier) == "PASS: nothing got heavier in lora; step time was not measured"
    assert "Process pairs" not in tables.facts(heavier)
    slower = made.model_copy(update={"verdicts": of_time, "counts": ()})
    assert tables.headline(slower) == "PASS: nothing got slower in lora"


def test_both_sides_and_a_dirty_tree_are_named() -> None:
    """The first line says what was compared, and that there were changes in no commit."""
    first = printed(made_checks.report()).splitlines()[0]
    assert first == "working tree (fedcba9876, with changes that are in no commit) against main (0123456789)"


@pytest.mark.parametrize("width", [80, 140])
def test_the_minimum_detectable_effect_is_always_shown(width: int) -> None:
    """Also on a narrow terminal, with the verdict."""
    text = printed(made_checks.report(), width)
    assert "detectable" in text
    assert "PASS" in text
    mde = made_checks.report().verdicts[0].mde
    assert mde is not None
    assert f"+{100 * mde:.2f} %" in text


def test_only_changed_counts_are_shown_and_the_rest_counted() -> None:
    """One of six grew; what grew is named as torch writes it."""
    text = printed(made_checks.report(grown=12))
    assert "5 of 6 counts without noise are unchanged." in text
    assert "from 2 (+600 %); what grew: aten.item x 12" in text
    assert "FLOPs" not in text


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    """No terminal escape, no change of direction, no workflow command and no markup gets through."""
    text = printed(made_checks.report({made_checks.HOSTILE: 0.05, "[red]x[/red]": 0.05}, label=made_checks.HOSTILE))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "::error" not in text
    assert "[red]x[/red]" in text


def test_a_report_without_verdicts_says_that_nothing_was_measured() -> None:
    """Not PASS."""
    assert "nothing was measured" in printed(made_checks.report(verdicts=(), blocks=(), counts=()))


@pytest.mark.parametrize("status", ["INCONCLUSIVE", "INCOMPARABLE"])
def test_undecided_outcomes_say_why(status: str) -> None:
    """The reason stands in a sentence before the outcome, and between both that the status is 0 all the same."""
    verdict = Verdict(method="lora", metric="step_time", status=status, detail="another processor", pairs=3)
    lines = printed(made_checks.report(verdicts=(verdict,), counts=())).splitlines()
    assert lines[-3] == f"{status} lora: another processor"
    assert lines[-2] == "what is not decided leaves the exit status at 0; with --strict it is 3"
    assert lines[-1].startswith(f"{status}: ")


def test_methods_come_in_the_order_asked_for() -> None:
    """Whichever was timed first."""
    made = made_checks.report()
    turned = made.model_copy(update={"verdicts": made.verdicts[::-1]})
    assert [row[0] for row in tables.step_times(turned).rows] == [*made_checks.METHODS]


def test_versions_that_differ_are_named() -> None:
    """An environment is compared with another: which packages changed stands among the facts."""
    made = made_checks.report()
    newer = made.candidate.model_copy(update={"versions": {"torch": "2.14.0", "numpy": "2.4.6"}})
    changed = made.model_copy(update={"candidate": newer})
    assert tables.facts(changed)["Versions"] == "torch 2.13.0 → 2.14.0"
    assert "Versions" not in tables.facts(made)


def test_many_failures_are_cut_in_the_headline() -> None:
    """Six are named, the rest counted."""
    verdicts = tuple(Verdict(method=f"m{i}", metric="step_time", status="FAIL", detail="x") for i in range(9))
    assert tables.headline(made_checks.report(verdicts=verdicts)).endswith("m5 (step time) and 3 more")
