"""Work of a job: the remaining runs of a unit, one after another, each committed as it ends.

In comes a sweep's plan and the number of a unit, or the preparation alone. Out go the runs' records
and the job's file, in the results folder of the plan, and an `Ending`. Jobs on other nodes write to
the same folder at the same time: a claim tells who works on the unit, and each run tells the others
that it is under way.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import launcher, preparation
from hpml_bench.launch.agent import OverNodes
from hpml_bench.page.terminal import terminal
from hpml_bench.plugins.engine import Engine, make_engine
from hpml_bench.plugins.method import check_methods
from hpml_bench.records.files import KEPT
from hpml_bench.records.folder import SharedResults
from hpml_bench.records.jobs import RUNNING, Job, JobPlan, claims, ended_here, read_plan, write_job
from hpml_bench.records.load import headlines
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import FINAL, RUN_ID, RunError, RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import RunSpec
from hpml_bench.sweep.claims import Claim, claimed
from hpml_bench.sweep.execute import Ending, Execution, SweepProgress
from hpml_bench.sweep.request import places
from hpml_bench.sweep.resolve import on_one_node, resolve_for_job
from hpml_bench.system import disk, processes
from hpml_bench.system import environment as jobs
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import (
    absolute_keeping_links,
    append,
    read_bytes,
    read_model,
    remove,
    write_atomically,
)
from hpml_bench.system.redaction import redacted
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import utc_now
from hpml_bench.training.request import Place, RunRequest

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

    `path` is the plan's file, or the results folder with it. A signal to stop, once the unit is
    claimed, isn't raised: the ending is `interrupted`, or `time` near the job's time limit.
    """
    plan = read_plan(path)
    folder = absolute_keeping_links(path if path.is_dir() else path.parent)
    # raises where the plan has no such unit
    plan.unit(number)
    engine = make_engine(plan.profile)
    job = _this_job(plan, number)
    # engines send it as a warning
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    with stoppable() as stop, claimed(folder, job, engine) as claim:
        ending = _recorded(folder, job, lambda: JobWork(plan, folder, job, claim, engine).run())
        if ending.how == "interrupted":
            # another job may take the unit while this one waits
            claim.release()
            _await_kill(stop, plan.profile.warned)
        return ending


def prepare(path: Path) -> None:
    """Prepare a plan's model and data, so that its jobs find them; raises UserError if they
    aren't available, and KeyboardInterrupt at a signal to stop.
    """
    plan = read_plan(path)
    folder = absolute_keeping_links(path if path.is_dir() else path.parent)

    def prepare_for_jobs() -> Ending:
        settings = resolve_for_job(plan, folder, plan.limits).suite.settings
        preparation.prepare(on_one_node(settings, plan))
        return Ending()

    ending = _recorded(folder, _this_job(plan, -1), prepare_for_jobs)
    if ending.how == "interrupted":
        raise KeyboardInterrupt


def _recorded(folder: Path, job: Job, do: Callable[[], Ending]) -> Ending:
    """Do a job's work, and write down that it has begun and how it ended; return its ending.

    A KeyboardInterrupt becomes the ending `interrupted`; any other exception is raised once the
    job is written down as failed, an Exception with its message.
    """
    write_job(folder, job)
    ending = Ending("failed")
    try:
        ending = do()
    except KeyboardInterrupt:
        ending = Ending("interrupted")
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        ending = Ending("failed", redacted(message))
        raise
    finally:
        why = None if ending.how == "left" else ending.why
        changes = {"ended": utc_now(), "how": ending.how, "why": why}
        write_job(folder, job.model_copy(update=changes))
    return ending


def _this_job(plan: JobPlan, unit: int) -> Job:
    """Return the job of this process on a unit (-1: the preparation), and name it in the
    environment.

    The processes of its runs read it there for their records.
    """
    this = jobs.this_job()
    os.environ |= {
        jobs.ENGINE: this.engine,
        jobs.JOB: this.job,
        jobs.RESTART: str(this.restart),
        jobs.UNIT: str(unit),
        jobs.CALL: str(plan.call),
    }
    return Job(
        engine=this.engine,
        job=this.job,
        restart=this.restart,
        unit=unit,
        host=this.host,
        pid=this.pid,
        process=processes.identity(this.pid),
        queued=this.queued,
        began=utc_now(),
    )


def _await_kill(stop: Stop, warned: float) -> None:
    """Wait `KILL_WAIT` seconds for the kill that follows a signal to end, where the engine sends
    one.

    A job whose time limit is near, for which it is signalled to `warned` seconds before, doesn't
    wait: the engine restarts only what it preempted.
    """
    this = jobs.this_job()
    # there are schedulers, such as PBS, for which there may be no engine
    is_engine = this.engine in registry.names("engines")
    kills = is_engine and registry.plugin("engines", this.engine).kills
    if not (stop.requested and kills):
        return
    if _left(this.until) <= warned + EARLY:
        return
    # where a job leaves by itself, some versions of Slurm don't begin it anew after a preemption
    sys.stdout.flush()
    with stop.deferred():
        time.sleep(KILL_WAIT)


class JobWork:
    """The work of one job: remaining runs of its unit, within its time and while it holds the
    unit.
    """

    def __init__(self, plan: JobPlan, folder: Path, job: Job, claim: Claim, engine: Engine) -> None:
        """Keep the arguments; the hours of the limits count from here, and the profile's time
        limit where the engine doesn't tell when the job's time ends.
        """
        self.plan = plan
        self.folder = folder
        self.job = job
        self.claim = claim
        self.hosts = engine.hosts()
        self.results = SharedResults(folder, job)
        self._progress = SweepProgress(terminal(), len(plan.unit(job.unit).tasks), plan.verbose)
        nodes = plan.profile.nodes
        run_ranks = launcher.here if nodes == 1 else OverNodes(nodes, engine.over_nodes)
        self._execution = Execution(plan.limits, self._progress, run_ranks=run_ranks)
        # the end of the job's time, as time.time(): as its engine tells it, else by the profile
        self.until = jobs.this_job().until
        if self.until is None and plan.profile.seconds is not None:
            self.until = time.time() + plan.profile.seconds
        # seconds that the job had when its work began
        self.had = _left(self.until)
        timed = headlines(folder) if self.until is not None else ()
        # seconds of the longest run so far, by any job
        self._longest = max((run.wall_seconds for run in timed if run.status == "ok"), default=0.0)
        self._begun = False
        # why no further run was begun
        self._ended: Ending | None = None
        # registration of the run under way; there is none before the first request
        self._neighbours: Neighbours

    def run(self) -> Ending:
        """Do the unit's remaining runs; return why the job ended, and whether any run of the unit
        has failed.

        Raises UserError if the settings, model or data of this node aren't those of the other jobs,
        or a run can't be done or kept here.
        """
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
            prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
            places_of_runs = places(whole.runs, suite)
            unit = Plan((specs,), prepared.digests, self.plan.call)
            (remaining,) = unit.remaining(self.results.records(specs))
            self._progress.skip(len(specs) - len(remaining))
            requests = self._requests(remaining, prepared, places_of_runs)
            done = self._execution.execute(
                requests, self.keep, lambda _: self._neighbours, self.interrupted
            )
            ending = self._ended or done
            if ending.why:
                self._progress.say(ending.why)
        # the unit's records, whichever job made them
        failed = any(record.status not in FINAL for record in self.results.records(specs))
        return replace(ending, failed=failed)

    def stop(self) -> Ending | None:
        """Return why no further run may begin, None if one may; UserError where the claim can't
        be read.

        It is `left` if the job was restarted elsewhere, and `time` if a run that takes `MARGIN`
        times as long as the longest so far would not end before the job is signalled to.

        The job's first run is begun even so, unless a new job would have the time for it: else no
        job would ever begin it. A new job has the time where the profile's limit is a good deal
        longer than what this job had.
        """
        if not self.claim.held:
            return Ending("left", "this job was restarted elsewhere; it ends here")
        left = _left(self.until)
        needed = MARGIN * self._longest + self.plan.profile.warned
        if left > needed:
            return None
        if not self._begun:
            limit = self.plan.profile.seconds or self.had
            # Where the limit is hardly longer than what this job had, its start-up took the
            # difference, and that of a new job would too.
            new_job_has = limit if limit > MARGIN * self.had else self.had
            # a new job would also spend what this one has spent since, such as on the preparation
            spent = time.monotonic() - self._execution.began
            if needed > new_job_has - spent:
                return None
        why = f"{left:.0f} s are left of the job's time, and a run took {self._longest:.0f} s"
        return Ending("time", why)

    def _requests(
        self, specs: Iterable[RunSpec], prepared: Prepared, places_of_runs: Mapping[str, Place]
    ) -> Iterator[RunRequest]:
        """Yield the request of each run, until `stop` tells why the next one may not begin; that
        is kept in `_ended`.
        """
        for spec in specs:
            self._ended = self.stop()
            if self._ended is not None:
                return
            self._begun = True
            self._neighbours = Neighbours(self.results, spec, self.hosts)
            folder = self.results.begin(spec).path
            yield RunRequest(
                spec=spec,
                prepared=prepared,
                folder=folder,
                limits=self.plan.limits,
                place=places_of_runs[spec.run_id],
                save_to=folder / KEPT if self.plan.keep else None,
            )

    def keep(self, record: RunRecord) -> None:
        """Commit a run whose attempts are over, with its neighbours, and print the record that
        counts: that of another job, if it was first.

        Raises UserError on a full disk if the run failed, and if it can't be committed.
        """
        if record.status not in FINAL:
            # a failure for lack of space is no result
            disk.check_space(self.folder)
        record = self._neighbours.commit(record)
        self._longest = max(self._longest, record.wall_seconds)
        self._progress.finished(self.results.publish(record.spec, record))

    def interrupted(self, record: RunRecord | None) -> Ending:
        """Return the ending of a job that was signalled to: `time` near its time limit, else
        `interrupted`.

        `record` is that of the run under way, None without one. A run that was done all the same
        is committed; one that the time limit ended is kept as an attempt. Raises as `keep` does.
        """
        if record is None:
            return Ending("interrupted")
        done = record.status in FINAL
        if done:
            self.keep(record)
        else:
            # what failed for lack of space is no result
            disk.check_space(self.folder)
        # with more time left the signal was a person's, or a preemption's
        if _left(self.until) > self.plan.profile.warned + EARLY:
            return Ending("interrupted")
        if not done:
            self._out_of_time(record.spec, record)
        return Ending("time")

    def _out_of_time(self, spec: RunSpec, record: RunRecord) -> None:
        """Keep an attempt that the job's time limit ended; after a second one without progress
        the run has failed.

        Of the earlier attempts those count that a time limit ended, by any job, in the present call
        of run-all: before a further call the profile may have been given more time. The two need
        not follow each other. Raises UserError if the failed run can't be committed.
        """
        limit = self.plan.profile.time or f"{self.had / 60:.0f} minutes"
        message = f"not done in the job's time limit of {limit}"
        attempt = self.results.attempt(spec)
        saved_steps = [
            earlier.saved
            for earlier in self.results.attempts(spec)
            if earlier.error and earlier.error.kind == TIME_LIMIT and earlier.call == self.plan.call
        ]
        saved_steps.append(attempt.saved)
        # An attempt goes on from the newest state of those before it. One that gets further saves a
        # step that none has saved; one that doesn't has the step of another, or 0.
        with_progress = set(saved_steps) - {0}
        without_progress = len(saved_steps) - len(with_progress)
        error = RunError(kind=TIME_LIMIT, message=message)
        record = attempt.commit(record.model_copy(update={"error": error}))
        if without_progress < TRIES:
            return
        why = f" ({attempt.not_saved})" if attempt.not_saved else ""
        message = f"{message}, {TRIES} times without progress{why}; give the profile more time"
        error = RunError(kind=TIME_LIMIT, message=message)
        record = record.model_copy(update={"status": "timeout", "error": error})
        self.results.publish(spec, attempt.commit(record))


def _left(until: float | None) -> float:
    """Return the seconds until a time.time(); infinite where there is none."""
    return float("inf") if until is None else until - time.time()


class Running(Frozen):
    """A run under way, in a file that it removes at its end."""

    run: str = Field(pattern=RUN_ID)
    hosts: tuple[str, ...]
    owner: Job


class Neighbours:
    """Registration of a run on its hosts; collects overlapping runs, each of which adds itself
    to the others' lists.

    It is entered for each attempt at the run, and the neighbours of all attempts are collected.
    """

    def __init__(self, results: SharedResults, spec: RunSpec, hosts: Iterable[str]) -> None:
        # without domains, which not every name has
        self._hosts = {host.partition(".")[0] for host in hosts}
        self._results = results
        self._run = spec.run_id
        self._file = results.path / RUNNING / f"{spec.run_id}.{results.job.name}.json"
        # ids of the runs that were under way while this one was
        self._others: set[str] = set()

    def __enter__(self) -> "Neighbours":
        """Register this run, then look for others: of two that begin at once, both see the
        other.

        A run is under way while its file is there and its job lives. The file of a job that was
        killed is removed, where it ran on one of this run's hosts.
        """
        self._file.parent.mkdir(exist_ok=True)
        _remove(self._file)
        registration = Running(
            run=self._run, hosts=tuple(sorted(self._hosts)), owner=self._results.job
        )
        write_atomically(self._file, registration.model_dump_json())
        try:
            self._look_for_others()
        except UserError:  # this run doesn't begin
            _remove(self._file)
            raise
        return self

    def _look_for_others(self) -> None:
        # names of the jobs that hold a unit
        working = {owner.name for owner in claims(self._results.path)}
        for path in self._file.parent.glob("*.json"):
            if path == self._file:
                continue
            other = read_model(path, Running)
            if other is None or self._hosts.isdisjoint(other.hosts):
                continue
            if _was_killed(other.owner, working):
                _remove(path)
                continue
            self._others.add(other.run)
            with _arrivals_readable(path):
                append(_arrivals(path), f"{self._run}\n")

    def __exit__(self, *_: object) -> None:
        """Collect the runs that have begun since, and remove this run's files."""
        try:
            with _arrivals_readable(self._file):
                lines = read_bytes(_arrivals(self._file)).decode(errors="replace").split()
                self._others |= {line for line in lines if re.fullmatch(RUN_ID, line)}
        finally:
            _remove(self._file)

    def commit(self, record: RunRecord) -> RunRecord:
        """Write the record of the run's attempt with its neighbours; return it as written."""
        # another job may have made an attempt at the same run at the same time
        others = self._others - {self._run}
        record = record.model_copy(update={"neighbours": tuple(sorted(others))})
        return self._results.attempt(record.spec).commit(record)


def _was_killed(owner: Job, working: Collection[str]) -> bool:
    """Return whether the job of a registered run no longer lives; `working` are the names of the
    jobs that hold a unit.

    Of a job of this host its process tells. One of another host, whose process can't be seen from
    here, is taken to live while it holds a unit.
    """
    lives_here = owner.process is not None and owner.process == processes.identity(owner.pid)
    if lives_here:
        return False
    return ended_here(owner) or owner.name not in working


def _arrivals(path: Path) -> Path:
    """Return the list of runs that have begun since the run whose file this is."""
    return path.with_suffix(".came")


@contextmanager
def _arrivals_readable(path: Path) -> Iterator[None]:
    """Make the body's errors UserErrors that name the list of arrivals; nothing where there is
    none.
    """
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"{_arrivals(path)}: {error.strerror}, so it isn't known which runs were neighbours; "
            "remove it, and the same command goes on"
        ) from None


def _remove(path: Path) -> None:
    """Remove a run's file and its list of arrivals."""
    for file in (path, _arrivals(path)):
        remove(file)
