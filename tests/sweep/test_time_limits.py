"""Time limits of jobs: which runs are begun, and what counts as too long; and nodes that would resolve otherwise."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import made_records, tiny
from hpml_bench.plugins.engine import make_engine
from hpml_bench.records.jobs import RESOLVED, Job, JobPlan
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.profile import load_profile
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.execute import Ending
from hpml_bench.sweep.job import JobWork
from hpml_bench.sweep.plan import SweepRequest, plan_jobs
from hpml_bench.sweep.resolve import resolve_for_job
from hpml_bench.sweep.watch import Claim
from hpml_bench.system.errors import UserError


def planned(folder: Path, settings: dict[str, Any] | None = None, **profile: Any) -> JobPlan:
    suite = load_suite("quickstart", seeds=1)
    suite = suite.model_copy(update={"settings": suite.settings.model_copy(update=settings or {})})
    request = SweepRequest(suite, folder, ("head",))
    return plan_jobs(request, load_profile("manual", profile.items()), folder, None)


def work(folder: Path, plan: JobPlan, name: str = "j") -> JobWork:
    job = Job(engine="x", job=name, restart=0, unit=0, host="n1", pid=os.getpid(), began="2026-01-01T00:00:00Z")
    return JobWork(plan, folder, job, Claim(folder, job), make_engine(plan.profile))


@pytest.mark.parametrize(("left", "profile", "longest", "begun"), [
    (3600, {}, 300, (True, True)),
    (3600, {}, 3500, (True, False)),  # no job has more for its first run
    (600, {}, 600, (True, False)),
    (600, {"time": "1:00:00"}, 600, (False, False)),  # another job has
    (3600, {"time": "1:00:00"}, 3500, (True, False)),
    (3300, {"time": "1:00:00"}, 3000, (True, False)),  # a slow start took the rest
    (None, {"time": "1:00:00"}, 3500, (True, False)),
    (None, {}, 10**9, (True, True)),
])  # fmt: skip
def test_a_run_is_begun_where_it_can_end_or_no_job_has_longer(
    left: int | None, profile: dict[str, str], longest: float, begun: tuple[bool, bool], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a job's runs the first and a later one, by the longest so far, whoever says what the limit is."""
    if left is not None:
        monkeypatch.setenv("HPML_BENCH_UNTIL", str(int(time.time()) + left))
    slowest = made_records.sweep(("head",), 1)[0].model_copy(update={"seconds": float(longest)})
    made_records.write(tmp_path, [slowest])
    found = work(tmp_path, planned(tmp_path, **profile))
    found.claim.take()
    for later, expected in enumerate(begun):
        found._begun = bool(later)
        ended = found.stop()
        assert (ended and ended.how) == (None if expected else "time")


def test_attempts_of_an_earlier_call_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After more time a run has two attempts again; the limit is named, and why no state was saved."""
    made = made_records.sweep(("head",), 1)[0].model_copy(update={"status": "interrupted"})
    monkeypatch.setenv("HPML_BENCH_UNTIL", str(int(time.time()) + 1800))

    def late(name: str, call: int) -> RunRecord | None:
        record = made.model_copy(update={"environment": made.environment | {"where": {"call": call}}})
        found = work(tmp_path, planned(tmp_path).model_copy(update={"call": call}), name)
        found.until = time.time() + 30
        folder = found.results.begin(record.spec)
        folder.begin()
        (folder.path / "rank0.log").write_text("no checkpoint: a plug-in\nthe end\n")
        request = tiny.request(record.spec, tiny.NOTHING, folder.path)
        assert found.interrupted(request, record) == Ending("time")
        return found.results.run_folder(record.spec).record()

    assert late("a", 1) is None
    assert late("b", 2) is None
    second = late("c", 2)
    reason = "not done in the job's time limit of 30 minutes, 2 times without progress (no checkpoint: a plug-in); give"
    assert second.error.message == f"{reason} the profile more time"


@pytest.mark.parametrize(("settings", "named"), [({"threads": None}, "threads"), ({"device": "auto"}, "device")])
def test_a_node_that_would_resolve_otherwise_is_refused(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    """The first job decides what the suite leaves open; a later one on another kind of node says what differs."""
    plan = planned(tmp_path, settings)
    first = resolve_for_job(plan, tmp_path, Limits()).suite.settings
    assert resolve_for_job(plan, tmp_path, Limits()).suite.settings == first
    other = {"threads": 999, "device": "cuda"}[named]
    (tmp_path / RESOLVED).write_text(first.model_copy(update={named: other}).model_dump_json())
    with pytest.raises(UserError, match=f"this node would run with {named} .* instead of {other}"):
        resolve_for_job(plan, tmp_path, Limits())
