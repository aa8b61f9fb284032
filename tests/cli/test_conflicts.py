"""Options of run-all that jobs can't keep are refused; all other limits go to the jobs."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import called
from helpers.fake_slurm import asked
from hpml_bench.cli.conflicts import CALL_LIMITS
from hpml_bench.records.plan import UNLIMITED, Limits
from hpml_bench.sweep.request import plan_jobs

LIMITS: dict[str, tuple[list[str], Any]] = {
    "stall": (["--stall", "11"], 11.0),
    "run_timeout": (["--run-timeout", "12"], 12.0),
    "retries": (["--retries", "3"], 3),
    "max_hours": (["--max-hours", "0"], 0.0),
    "fail_fast": (["--fail-fast"], True),
    "checkpoint_minutes": (["--checkpoint-minutes", "4"], 4.0),
    "checkpoint_steps": (["--checkpoint-steps", "5"], 5),
}
"""Field of `Limits` -> its option with a value that isn't the default, and that value."""
JOBS = (["--parallel", "2"], ["--on", "local"], ["--on", "slurm", "--dry-run"])


def test_every_limit_is_known_here() -> None:
    """A new limit has an option, and either goes to the jobs or is refused with them."""
    assert set(LIMITS) == {field.name for field in fields(Limits)}
    assert set(CALL_LIMITS) <= set(LIMITS)


@pytest.mark.parametrize("jobs", JOBS, ids=" ".join)
@pytest.mark.parametrize("name", CALL_LIMITS)
def test_limits_of_a_call_are_refused_with_jobs(name: str, jobs: list[str], tmp_path: Path) -> None:
    """One sentence names the option, and nothing is written."""
    options, _ = LIMITS[name]
    out = tmp_path / "out"
    refused = called("run-all", "quickstart", "--out", out, *jobs, *options, status=2)
    assert refused.stderr.startswith(f"hpml-bench: {options[0]} is for runs one after another")
    assert not out.exists()


@pytest.mark.parametrize("name", sorted(set(LIMITS) - set(CALL_LIMITS)))
def test_limits_of_a_run_go_to_the_jobs(name: str, tmp_path: Path) -> None:
    """By the plan, which each job reads."""
    request, profile = asked()
    _, value = LIMITS[name]
    limits = replace(UNLIMITED, **{name: value})
    assert limits != UNLIMITED
    plan = plan_jobs(replace(request, limits=limits), profile, tmp_path, None)
    assert plan.limits == limits


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--detach"], "--detach needs --on PROFILE"),
        (["--dry-run"], "--dry-run needs --on PROFILE"),
        (["--ahead", "--until", "decided"], "--ahead fills slots of jobs between rounds"),
        (["--ahead", "--parallel", "2"], "--ahead fills slots of jobs between rounds"),
        (
            ["--detach", "--on", "slurm", "--until", "decided"],
            "--detach: a sweep with --until looks at each round",
        ),
    ],
)
def test_options_that_need_or_exclude_others(
    options: list[str], words: str, tmp_path: Path
) -> None:
    """Each is refused in a sentence before anything is written."""
    out = tmp_path / "out"
    refused = called("run-all", "quickstart", "--out", out, *options, status=2)
    assert refused.stderr.startswith(f"hpml-bench: {words}")
    assert not out.exists()
