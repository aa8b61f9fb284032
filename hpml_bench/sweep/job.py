"""Work of a job: the runs of a unit that are not done, one after another, each committed as it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hpml_bench.errors import UserError
from hpml_bench.launch import fork_server, launcher, preparation
from hpml_bench.launch.limits import Limits
from hpml_bench.launch.outcome import Place
from hpml_bench.launch.over_nodes import OverNodes
from hpml_bench.launch.watchdog import AGENT_SIGNAL
from hpml_bench.plugins.engine import Engine, make_engine
from hpml_bench.plugins.method import check_methods
from hpml_bench.records.files import as_typed
from hpml_bench.records.listing import load_records
from hpml_bench.records.plan import Job, Plan, call, read_plan, write_job
from hpml_bench.records.run import DONE, RunError, RunRecord, protocol_id
from hpml_bench.records.shared import SharedResults
from hpml_bench.report.terminal import terminal
from hpml_bench.suite.settings import RunSpec
from hpml_bench.sweep.claims import Claim, claimed
from hpml_bench.sweep.neighbours import Neighbours
from hpml_bench.sweep.order import places
from hpml_bench.sweep.progress import SweepProgress
from hpml_bench.sweep.resolve_for_job import on_one_node, resolve
from hpml_bench.sweep.runner import Runner
from hpml_bench.system import disk, processes
from hpml_bench.system import job as jobs
from hpml_bench.system.redaction import redacted
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import utc_now

MARGIN = 1.1
"""By this a run may be longer than the longest so far."""
TIME_LIMIT = "TimeLimit"
EARLY = 60.0
"""By so many seconds the request to end before a time limit may come too early (sbatch(1), `--signal`)."""
TRIES = 2
"""Attempts at a run that a time limit ends before it counts as too long."""
KILL_WAIT = 60.0
"""Seconds that a job which was asked to end waits for its kill: an engine that preempts may begin it anew only then."""


@dataclass(frozen=True)
class Worked:
    """What a job did."""

    how: str
    records: tuple[RunRecord, ...]
    why: str | None = None
    """Why it has left runs undone, where it tells."""

    @property
    def well(self) -> bool:
        """Whether all runs of the unit are done."""
        return self.how == "done" and all(record.status in DONE for record in self.records)


def work(path: Path, number: int) -> Worked:
    """Do the runs of a unit of a plan that are not done.

    Raises:
        UserError: there is no such plan or unit, another job holds the unit, or this node can't have its settings.

    """
    plan, folder = read_plan(path), as_typed(path if path.is_dir() else path.parent)
    plan.unit(number)
    engine, own = make_engine(plan.profile), _this_job(plan, number)
    signal.signal(AGENT_SIGNAL, signal.SIG_IGN)  # engines send it as a warning; here it is torch's agent's
    with stoppable() as stop, claimed(folder, own, engine) as claim:
        write_job(folder, own)
        how, why = "failed", None
        try:
            worked = _Work(plan, folder, own, claim, engine).run()
            how, why = worked.how, worked.why
        except KeyboardInterrupt:
            how = "interrupted"
            worked = Worked(how, ())
        except Exception as error:
            why = redacted(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            raise
        finally:
            write_job(folder, own.model_copy(update={"ended": utc_now(), "how": how, "why": why}))
            if how == "interrupted":
                claim.release()
                _await_kill(stop, plan.profile.warned)
        return worked


def prepare(path: Path) -> None:
    """Prepare the model and data of a plan, so that its jobs find them.

    Raises:
        UserError: they can't be had.

    """
    plan, folder = read_plan(path), as_typed(path if path.is_dir() else path.parent)
    own = _this_job(plan, -1)
    write_job(folder, own)
    how, why = "failed", None
    try:
        fork_server.start_fork_server()
        preparation.prepare(on_one_node(resolve(plan, folder, _limits(plan)).suite.settings, plan))
        how = "done"
    except UserError as error:
        why = redacted(str(error))
        raise
    finally:
        write_job(folder, own.model_copy(update={"ended": utc_now(), "how": how, "why": why}))


def _this_job(plan: Plan, unit: int) -> Job:
    """Return what this process says of itself, also to its ranks."""
    own = jobs.this_job()
    os.environ |= {jobs.ENGINE: own.engine, jobs.JOB: own.job, jobs.RESTART: str(own.restart), jobs.UNIT: str(unit)}
    os.environ[jobs.CALL] = str(plan.call)
    return Job(
        engine=own.engine,
        job=own.job,
        restart=own.restart,
        unit=unit,
        host=own.host,
        pid=own.pid,
        process=processes.mark(own.pid),
        queued=own.queued,
        began=utc_now(),
    )


def _limits(plan: Plan) -> Limits:
    return Limits(stall=plan.limits.stall, run_timeout=plan.limits.run_timeout, retries=plan.limits.retries)


def _run_ranks(plan: Plan, engine: Engine) -> launcher.RunRanks:
    """Return what runs a run's ranks: on this machine, or on all nodes of the job."""
    return launcher.here if plan.profile.nodes == 1 else OverNodes(plan.profile.nodes, engine.over_nodes)


def _at_limit(until: float | None, warned: float) -> bool:
    """Tell whether a request to end that comes now is for the time limit."""
    return _left(until) <= warned + EARLY


def _await_kill(stop: Stop, warned: float) -> None:
    """After a request to end that is no time limit, wait a while for the kill that follows it."""
    own = jobs.this_job()
    if stop.asked and own.engine == "slurm" and not _at_limit(own.until, warned):
        sys.stdout.flush()
        with stop.deferred():
            time.sleep(KILL_WAIT)


class _Work:
    """The work of one job on its unit."""

    def __init__(self, plan: Plan, folder: Path, job: Job, claim: Claim, engine: Engine) -> None:
        self.plan, self.folder, self.job, self.claim = plan, folder, job, claim
        self.run_ranks, self.hosts = _run_ranks(plan, engine), engine.hosts()
        self.limits, self.began = _limits(plan), time.monotonic()
        self.results = SharedResults(folder, job)
        self.until = jobs.this_job().until
        if self.until is None and plan.profile.seconds is not None:
            self.until = time.time() + plan.profile.seconds
        self.had = _left(self.until)
        self.longest = 0.0
        self.why: str | None = None

    def run(self) -> Worked:
        """Do what is missing."""
        suite, notes = resolve(self.plan, self.folder, self.limits)
        units = self.plan.specs(suite.settings)
        specs = units[self.job.unit]
        check_methods((spec.method for spec in specs), suite.settings)
        progress = SweepProgress(terminal(), len(specs), self.plan.verbose)
        with progress:
            fork_server.start_fork_server()
            prepared = preparation.prepare(on_one_node(suite.settings, self.plan))
            if self.plan.digests is not None and prepared.digests != self.plan.digests:
                raise UserError(
                    f"{suite.settings.backbone}: model or data on {self.job.host} are not those that were prepared "
                    "when the sweep was submitted; let all nodes have one cache (HPML_BENCH_CACHE), or set prepare: job"
                )
            prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
            self.protocol = protocol_id(suite.settings, prepared.digests)
            runner = Runner(self.results, prepared, self.limits, progress, self.began, self.run_ranks)
            todo = [spec for spec in specs if not self._settled(spec)]
            progress.skip(len(specs) - len(todo))
            self.longest = max((r.seconds for r in load_records(self.folder).records if r.status == "ok"), default=0.0)
            how = self._each(todo, runner, progress, places(chain.from_iterable(units), suite))
        return Worked(how, self.results.records(specs), self.why)

    def _each(self, todo: list[RunSpec], runner: Runner, progress: SweepProgress, position: dict[str, Place]) -> str:
        """Do these runs; return how the job ended."""
        for number, spec in enumerate(todo):
            if not self.claim.held:
                progress.say("this job was begun anew elsewhere; it ends here")
                return "left"
            if not self._time_for_another(first=number == 0):
                self.why = f"{_left(self.until):.0f} s are left of the job's time, and a run took {self.longest:.0f} s"
                progress.say(self.why)
                return "time"
            interrupted = False
            with Neighbours(self.results, spec, self.hosts) as neighbours:
                try:
                    record: RunRecord | None = runner.run(spec, position[spec.run_id])
                except launcher.Interrupted as stop:
                    interrupted, record = True, stop.record
            if record is not None and record.status not in DONE:
                disk.check_space(self.folder)  # what failed for want of it is no result
            if record is not None and (record.status in DONE or not interrupted):
                record = neighbours.told(record)
                progress.finished(self.results.publish(spec, record))
                self.longest = max(self.longest, record.seconds)
            if interrupted:
                return self._interrupted(spec, record)
        return "done"

    def _settled(self, spec: RunSpec) -> bool:
        record = self.results.run_folder(spec).record()
        return record is not None and self.plan.settles(record, self.protocol)

    def _time_for_another(self, first: bool) -> bool:
        """Whether a run as long as the longest so far ends before the job is asked to.

        Where another job would have as little for its first run, it is begun all the same: it may be shorter.
        """
        needed = MARGIN * self.longest + self.plan.profile.warned
        whole = self.plan.profile.seconds or self.had
        begun = time.monotonic() - self.began
        most = whole if whole > MARGIN * self.had else self.had  # what is less than that went into the start
        return _left(self.until) > needed or (first and needed > most - begun)

    def _interrupted(self, spec: RunSpec, record: RunRecord | None) -> str:
        """Keep an interrupted attempt; of one that a time limit ended, say so, and give up after the second."""
        if record is None or not _at_limit(self.until, self.plan.profile.warned):
            return "interrupted"
        limit = self.plan.profile.time or f"{self.had / 60:.0f} minutes"
        late = RunError(kind=TIME_LIMIT, message=f"not done in the job's time limit of {limit}")
        if record.status not in DONE:
            ended = [found for found in self.results.attempts(spec) if found.error and found.error.kind == TIME_LIMIT]
            earlier = [found for found in ended if call(found) == self.plan.call]
            attempt = self.results.attempt(spec)
            record = attempt.commit(record.model_copy(update={"error": late}))
            if len(earlier) + 1 >= TRIES:
                message = f"{late.message}, {TRIES} times; give the profile more time"
                told = record.model_copy(
                    update={"status": "timeout", "error": RunError(kind=TIME_LIMIT, message=message)}
                )
                self.results.publish(spec, attempt.commit(told))
        return "time"


def _left(until: float | None) -> float:
    """Return the seconds until a job's time limit."""
    return float("inf") if until is None else until - time.time()
