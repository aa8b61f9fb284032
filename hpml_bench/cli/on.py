"""`hpml-bench run-all --on` and `--parallel`: a sweep by jobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpml_bench.cli.exit_status import FAILED, INTERRUPTED, OK, ended
from hpml_bench.cli.options import JobOptions
from hpml_bench.cli.reporting import write
from hpml_bench.page.terminal import terminal
from hpml_bench.plugins.engine import make_engine
from hpml_bench.plugins.tracker import Tracker
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.run import FINAL, RunRecord, Status
from hpml_bench.suite.profile import Profile, load_profile
from hpml_bench.sweep.execute import Ending, SweepProgress
from hpml_bench.sweep.jobs import JobSweep
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system import disk
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import absolute_keeping_links
from hpml_bench.system.signals import stoppable
from hpml_bench.system.text import for_terminal


def sweep_on(request: SweepRequest, jobs: JobOptions, trackers: Sequence[Tracker]) -> int:
    """Submit the units with runs left, wait, report, publish to trackers; return the exit
    status.
    """
    profile = profile_of(jobs)
    for doubt in request.doubts if profile.elsewhere else ():
        click.echo(for_terminal(f"{doubt}; the jobs may have it on their machines"), err=True)
    folder = absolute_keeping_links(request.folder)
    with disk.errors_as_user_errors(request.out), stoppable():
        if jobs.dry_run:
            script = JobSweep.preview(request, profile, folder, _say).script(jobs.detach)
            click.echo(script or "there is nothing to submit\n", nl=False)
            return OK
        engine = make_engine(profile)
        if jobs.detach and not engine.outlives:
            raise UserError(f"--detach: jobs on {engine.title} end with this command")
        sweep = JobSweep.open(request, profile, folder, _say)
        with sweep.held():
            return _submit_and_wait(sweep.prepared(), trackers, jobs.detach)


def profile_of(jobs: JobOptions) -> Profile:
    changes: list[tuple[str, Any]] = [] if jobs.parallel is None else [("parallel", jobs.parallel)]
    if jobs.on is None:  # runs side by side: each in a job of its own
        changes.append(("unit", "run"))
    return load_profile("local" if jobs.on is None else jobs.on, changes)


def _submit_and_wait(sweep: JobSweep, trackers: Sequence[Tracker], detach: bool) -> int:
    here = absolute_keeping_links(Path())
    shown = sweep.folder.relative_to(here) if sweep.folder.is_relative_to(here) else sweep.folder
    complete = None
    try:
        before = {(made.run_id, made.started): made.status for made in sweep.watch.records()}
        count = sweep.submit(again=True)
        if count and not sweep.engine.starts:
            click.echo(sweep.script(), nl=False)
            _say(f"run each command, then hpml-bench report {shown}")
            return OK
        if detach and sweep.submit_report():
            _say(f"hpml-bench status {shown} shows the jobs, and hpml-bench stop {shown} ends them")
            return OK
        complete = _wait(sweep, before)
    except KeyboardInterrupt:
        if sweep.engine.outlives:
            _say(
                f"the jobs go on; the same command waits for them again, and hpml-bench stop "
                f"{shown} ends them"
            )
            return INTERRUPTED
        _say("ending the runs under way ...")
        sweep.stop()
    made = sweep.watch.records()
    if made:
        write(sweep.folder, None, ["html", "md"], trackers)
    if complete is None:
        return ended(Ending("interrupted"))
    records = [
        RunFolder(sweep.folder / one.run_id).record() for one in made
    ]  # one may be lost since
    status = ended(Ending(), [record.status for record in records if record], len(made))
    if complete:
        return status
    for reason in sweep.reasons():
        click.echo(for_terminal(reason, 2000), err=True)
    click.echo(
        f"the jobs ended and left {len(sweep.watch.left())} of {len(sweep.plan.units)} units "
        f"undone; see {shown}/logs; the same command goes on from here",
        err=True,
    )
    return FAILED


def _wait(sweep: JobSweep, before: dict[tuple[str, str], Status]) -> bool:
    with SweepProgress(terminal(), sum(len(unit.tasks) for unit in sweep.plan.units)) as progress:
        there = {
            (made.run_id, made.started) for made in sweep.watch.records()
        }  # damaged ones are set aside since
        progress.skip(sum(status in FINAL for key, status in before.items() if key in there))
        sweep.say = progress.say

        def found(made: RunRecord) -> None:
            record = RunFolder(
                sweep.folder / made.run_id
            ).record()  # none where it has gone meanwhile
            if (made.run_id, made.started) not in before and record:
                progress.finished_elsewhere(record)

        return sweep.wait(found)


def _say(text: str) -> None:
    click.echo(for_terminal(text))
