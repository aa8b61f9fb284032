"""Work of a job: the remaining runs of a unit, one after another, each committed as it ends."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpml_bench.launch import launcher, preparation
from hpml_bench.launch.agent import OverNodes
from hpml_bench.plugins.engine import Engine, make_engine
from hpml_bench.plugins.method import check_methods
from hpml_bench.records.files import KEPT
from hpml_bench.records.folder import SharedResults
from hpml_bench.records.jobs import RUNNING, Job, JobPlan, claims, ended_here, read_plan, write_job
from hpml_bench.records.load import headlines
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import FINAL, RunError, RunRecord
from hpml_bench.report.terminal import terminal
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import RunSpec
from hpml_bench.sweep.claims import Claim, claimed
from hpml_bench.sweep.execute import Ending, Execution, SweepProgress
from hpml_bench.sweep.plan import places
from hpml_bench.sweep.resolve import on_one_node, resolve_for_job
from hpml_bench.system import disk, processes
from hpml_bench.system import environment as jobs
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import absolute_keeping_links, read_model, write_atomically
from hpml_bench.system.redaction import redacted
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import utc_now
from hpml_bench.training.request import RunRequest

MARGIN = 1.1  # safety factor on the longest run so far
TIME_LIMIT = "TimeLimit"
# seconds by which the signal before a time limit may arrive too early (sbatch(1), `--signal`)
EARLY = 60.0
TRIES = 2  # attempts without progress that a time limit may end before a run counts as too long
# seconds that a job asked to end waits for its kill: only then may a preempting engine restart it
KILL_WAIT = 60.0


def work(path: Path, number: int) -> Ending:
    """Do the remaining runs of a plan's unit; UserError if there is none, it is held, or it
    can't be run here.
    """
    plan, folder = read_plan(path), absolute_keeping_links(path if path.is_dir() else path.parent)
    plan.unit(number)
    engine, own = make_engine(plan.profile), _this_job(plan, number)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # engines send it as a warning
    with stoppable() as stop, claimed(folder, own, engine) as claim:
        ending = _recorded(folder, own, lambda: JobWork(plan, folder, own, claim, engine).run())
        if ending.how == "interrupted":
            claim.release()
            _await_kill(stop, plan.profile.warned)
        return ending


def prepare(path: Path) -> None:
    """Prepare a plan's model and data, so that its jobs find them; raises UserError if they
    aren't available.
    """
    plan, folder = read_plan(path), absolute_keeping_links(path if path.is_dir() else path.parent)

    def prepared() -> Ending:
        preparation.prepare(
            on_one_node(resolve_for_job(plan, folder, plan.limits).suite.settings, plan)
        )
        return Ending()

    if _recorded(folder, _this_job(plan, -1), prepared).how == "interrupted":
        raise KeyboardInterrupt


def _recorded(folder: Path, own: Job, do: Callable[[], Ending]) -> Ending:
    """Do a job's work, and write down that it has begun and how it ended."""
    write_job(folder, own)
    ending = Ending("failed")
    try:
        ending = do()
    except KeyboardInterrupt:
        ending = Ending("interrupted")
    except Exception as error:
        why = redacted(
            str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        )
        ending = Ending("failed", why)
        raise
    finally:
        why = None if ending.how == "left" else ending.why
        write_job(
            folder, own.model_copy(update={"ended": utc_now(), "how": ending.how, "why": why})
        )
    return ending


def _this_job(plan: JobPlan, unit: int) -> Job:
    own = jobs.this_job()
    os.environ |= {
        jobs.ENGINE: own.engine,
        jobs.JOB: own.job,
        jobs.RESTART: str(own.restart),
        jobs.UNIT: str(unit),
    }
    os.environ[jobs.CALL] = str(plan.call)
    same: dict[str, Any] = {
        name: getattr(own, name) for name in ("engine", "job", "restart", "host", "pid", "queued")
    }
    return Job(**same, unit=unit, process=processes.identity(own.pid), began=utc_now())


def _await_kill(stop: Stop, warned: float) -> None:
    """Wait a while for the kill that follows a signal to end, unless that was for the time
    limit.
    """
    # where a job leaves by itself, some versions of Slurm don't begin it anew after a preemption
    own = jobs.this_job()
    kills = own.engine in registry.names("engines") and registry.plugin("engines", own.engine).kills
    if stop.requested and kills and _left(own.until) > warned + EARLY:
        sys.stdout.flush()
        with stop.deferred():
            time.sleep(KILL_WAIT)


class JobWork:
    """The work of one job: remaining runs of its unit, within its time and while it holds the
    unit.
    """

    def __init__(self, plan: JobPlan, folder: Path, job: Job, claim: Claim, engine: Engine) -> None:
        self.plan, self.folder, self.job, self.claim = plan, folder, job, claim
        self.hosts, self.results = engine.hosts(), SharedResults(folder, job)
        self._progress = SweepProgress(terminal(), len(plan.unit(job.unit).tasks), plan.verbose)
        nodes = plan.profile.nodes
        run_ranks = launcher.here if nodes == 1 else OverNodes(nodes, engine.over_nodes)
        self._execution = Execution(plan.limits, self._progress, run_ranks=run_ranks)
        self.until = jobs.this_job().until
        if self.until is None and plan.profile.seconds is not None:
            self.until = time.time() + plan.profile.seconds
        self.had = _left(self.until)
        timed = headlines(folder) if self.until is not None else ()
        self._longest = max((run.wall_seconds for run in timed if run.status == "ok"), default=0.0)
        self._begun = False
        self._ended: Ending | None = None  # why no further run was begun

    def run(self) -> Ending:
        suite, notes = resolve_for_job(self.plan, self.folder, self.plan.limits)
        whole = self.plan.resolved(suite.settings)
        specs = whole.units[self.job.unit]
        check_methods((spec.method for spec in specs), suite.settings)
        with self._progress:
            prepared = preparation.prepare(on_one_node(suite.settings, self.plan))
            if self.plan.digests is not None and prepared.digests != self.plan.digests:
                raise UserError(
                    f"{suite.settings.backbone}: model or data on {self.job.host} are not those "
                    "that were prepared when the sweep was submitted; let all nodes have one "
                    "cache (HPML_BENCH_CACHE), or set prepare: job"
                )
            self._prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
            self._position = places(whole.runs, suite)
            (left,) = Plan((specs,), prepared.digests, self.plan.call).remaining(
                self.results.records(specs)
            )
            self._progress.skip(len(specs) - len(left))
            requests = self._requests(left)
            done = self._execution.execute(
                requests, self.keep, lambda _: self._neighbours, self.interrupted
            )
            ending = self._ended or done
            if ending.why:
                self._progress.say(ending.why)
        return replace(
            ending, failed=any(record.status not in FINAL for record in self.results.records(specs))
        )

    def stop(self) -> Ending | None:
        """End if the job was restarted elsewhere, or has no time for another run."""
        if not self.claim.held:
            return Ending("left", "this job was restarted elsewhere; it ends here")
        # A run as long as the longest so far has to end before the job is signalled to. The first
        # one starts even if it may not fit: a new job would have no more time.
        left, needed = _left(self.until), MARGIN * self._longest + self.plan.profile.warned
        whole = self.plan.profile.seconds or self.had
        most = (
            whole if whole > MARGIN * self.had else self.had
        )  # start-up used the rest of the allocation
        fits = left > needed or (
            not self._begun and needed > most - (time.monotonic() - self._execution.began)
        )
        why = f"{left:.0f} s are left of the job's time, and a run took {self._longest:.0f} s"
        return None if fits else Ending("time", why)

    def _requests(self, left: Iterable[RunSpec]) -> Iterator[RunRequest]:
        for spec in left:
            self._ended = self.stop()
            if self._ended is not None:
                return
            self._begun = True
            self._neighbours = Neighbours(self.results, spec, self.hosts)
            folder, place = self.results.begin(spec).path, self._position[spec.run_id]
            to = folder / KEPT if self.plan.keep else None
            yield RunRequest(
                spec=spec,
                prepared=self._prepared,
                folder=folder,
                limits=self.plan.limits,
                place=place,
                save_to=to,
            )

    def keep(self, record: RunRecord) -> None:
        if record.status not in FINAL:
            disk.check_space(self.folder)  # a failure for lack of space is no result
        record = self._neighbours.commit(record)
        self._longest = max(self._longest, record.wall_seconds)
        self._progress.finished(self.results.publish(record.spec, record))

    def interrupted(self, record: RunRecord | None) -> Ending:
        """Commit a run that was done all the same; else return whether the job's time limit
        ended it.
        """
        if record is None:
            return Ending("interrupted")
        if record.status in FINAL:
            self.keep(record)
        else:
            disk.check_space(self.folder)  # what failed for want of it is no result
        if _left(self.until) > self.plan.profile.warned + EARLY:
            return Ending("interrupted")
        if record.status not in FINAL:
            self._out_of_time(record.spec, record)
        return Ending("time")

    def _out_of_time(self, spec: RunSpec, record: RunRecord) -> None:
        """Keep an attempt that the job's time limit ended; after a second one without progress
        the run has failed.
        """
        message = (
            f"not done in the job's time limit of "
            f"{self.plan.profile.time or f'{self.had / 60:.0f} minutes'}"
        )
        ended = [
            past
            for past in self.results.attempts(spec)
            if past.error and past.error.kind == TIME_LIMIT
        ]
        attempt = self.results.attempt(spec)
        saved = [attempt.saved, *(past.saved for past in ended if past.call == self.plan.call)]
        fruitless = len(saved) - len(
            {*saved} - {0}
        )  # attempts that saved no later step than one before
        record = attempt.commit(
            record.model_copy(update={"error": RunError(kind=TIME_LIMIT, message=message)})
        )
        if fruitless >= TRIES:
            why = f" ({attempt.not_saved})" if attempt.not_saved else ""
            message = f"{message}, {TRIES} times without progress{why}; give the profile more time"
            final = record.model_copy(
                update={"status": "timeout", "error": RunError(kind=TIME_LIMIT, message=message)}
            )
            self.results.publish(spec, attempt.commit(final))


def _left(until: float | None) -> float:
    return float("inf") if until is None else until - time.time()


class Running(Frozen):
    """A run under way, in a file that it removes at its end."""

    run: str
    hosts: tuple[str, ...]
    owner: Job


class Neighbours:
    """Registration of a run on its hosts; collects overlapping runs, each of which adds itself
    to the others' lists.
    """

    def __init__(self, results: SharedResults, spec: RunSpec, hosts: Iterable[str]) -> None:
        self._hosts = {
            host.partition(".")[0] for host in hosts
        }  # without domains, which not every name has
        self._results, self._run = results, spec.run_id
        self._file = results.path / RUNNING / f"{spec.run_id}.{results.job.name}.json"
        self._others: set[str] = set()

    def __enter__(self) -> "Neighbours":
        """Register this run, then look for others: of two that begin at once, both see the
        other.
        """
        self._file.parent.mkdir(exist_ok=True)
        own = Running(run=self._run, hosts=tuple(sorted(self._hosts)), owner=self._results.job)
        write_atomically(self._file, own.model_dump_json())
        working = {owner.name for owner in claims(self._results.path)}
        for path in self._file.parent.glob("*.json"):
            other = read_model(path, Running)
            if path == self._file or other is None or self._hosts.isdisjoint(other.hosts):
                continue
            owner = other.owner
            alive = owner.process is not None and owner.process == processes.identity(owner.pid)
            if not alive and (ended_here(owner) or owner.name not in working):
                _remove(path)  # it was killed
                continue
            self._others.add(other.run)
            with _arrivals(path).open("a", encoding="utf-8") as file:
                file.write(f"{self._run}\n")
        return self

    def __exit__(self, *_: object) -> None:
        if _arrivals(self._file).exists():
            self._others |= set(_arrivals(self._file).read_text(encoding="utf-8").split())
        _remove(self._file)

    def commit(self, record: RunRecord) -> RunRecord:
        record = record.model_copy(update={"neighbours": tuple(sorted(self._others - {self._run}))})
        return self._results.attempt(record.spec).commit(record)


def _arrivals(path: Path) -> Path:
    return path.with_suffix(".came")


def _remove(path: Path) -> None:
    for file in (path, _arrivals(path)):
        file.unlink(missing_ok=True)
