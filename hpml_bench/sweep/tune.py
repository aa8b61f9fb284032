"""Tuning: trial by trial over all methods, resumed where it stopped, and its result as a suite file."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpml_bench import registry
from hpml_bench.data.prepared import Prepared
from hpml_bench.errors import UserError
from hpml_bench.launch import fork_server, launcher, preparation
from hpml_bench.launch.limits import Limits
from hpml_bench.plugins.method import check_methods
from hpml_bench.plugins.task import RETENTION, make_task
from hpml_bench.records.files import write_atomically
from hpml_bench.records.folder import ResultsFolder, make_folder
from hpml_bench.records.run import Metric, RunRecord, protocol_id
from hpml_bench.records.tuning import FOLDER, RECORD, Sampler, Trial, TunedMethod, TuningRecord, load
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings, identity
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep import resolve as definite
from hpml_bench.sweep.progress import SweepProgress
from hpml_bench.sweep.runner import Runner
from hpml_bench.sweep.studies import Study, open_storage
from hpml_bench.sweep.write_suite import check_target, write_suite
from hpml_bench.system import environment, tempdir
from hpml_bench.system.hashing import digest
from hpml_bench.system.signals import stoppable

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from rich.console import Console

FIRST_SEED = 10_000
"""Trial k of every method has the seed 10,000 + k, beyond any seed of a comparison (at most 1,000)."""
FACTOR = 10.0
"""The range: a tenth to ten times a method's rate, two decades for all."""
END_ONLY = 10**9
"""Steps between evaluations, so that there is none before the last step."""


@dataclass(frozen=True)
class TuningResult:
    """What a tuning left."""

    folder: Path
    record: TuningRecord
    suite_file: Path | None
    """The suite with the chosen rates; None where it ended before it was done."""
    ended_by: str | None = None
    """The limit that ended it, in words, if one did."""

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it before it was done."""
        return self.suite_file is None and self.ended_by is None


def run_tuning(  # noqa: PLR0913, PLR0917 - a command's options
    suite: Suite,
    out: Path,
    console: Console,
    trials: int,
    methods: Sequence[str] | None = None,
    write: Path | None = None,
    sampler: Sampler = "qmc",
    factor: float = FACTOR,
    verbose: bool = False,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> TuningResult:
    """Do what is missing of `trials` trials of every method; write trials.json and the suite with the chosen rates.

    A trial is a run of the suite's own budget in a process group of its own. It is evaluated on the validation rows;
    the ranks are given no path to the test rows.

    Raises:
        UserError: Optuna is missing, a method is unknown, a source can't be had, or the folder is in use.

    """
    here = resolve_suite(suite)  # what this machine can't do is told before a folder is made
    named = [suite.method(name) for name in (suite.methods if methods is None else methods)]
    specs = [spec for spec in named if registry.plugin("methods", spec.method).trains]  # the others have no rate
    if not specs:
        raise UserError(f"suite {suite.name}: there is no method to tune; none of those asked for trains anything")
    check_methods(specs, here.settings)
    folder = out / suite.name / FOLDER
    target = check_target(write or folder / f"{suite.name}-tuned.yaml")
    make_folder(folder)
    progress = SweepProgress(console, trials * len(specs), verbose)
    with ResultsFolder.open(folder, lock=folder.parent) as results, stoppable(), progress:
        began = time.monotonic()
        found, notes = definite.resolve(suite, folder.parent, limits)
        settings = found.settings
        studies = open_storage(folder)
        fork_server.start_fork_server()
        progress.say(f"preparing model and data of {settings.backbone} ...")
        prepared = preparation.prepare(settings, limits.max_seconds)
        prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
        blank = TuningRecord(
            suite=suite.name,
            sampler=sampler,
            factor=factor,
            settings=settings,
            validation_rows=prepared.rows.get("validation"),
            digests={key: value for key, value in prepared.digests if value},
            environment=environment.describe(),
            headline=headline_of(settings),
            methods=(),
        )
        tuning = _Tuning(folder, blank, load(folder / RECORD), {spec.name: spec for spec in specs}, studies)
        with validation_for_test(prepared) as substituted:
            runner = Runner(results, substituted, limits, progress, began)
            done = tuning.run_missing(runner, trials)
        record = tuning.keep()
        if done:
            write_suite(target, suite, record)
    return TuningResult(folder, record, target if done else None, runner.ended_by)


def headline_of(settings: Settings) -> Metric:
    """Return the definition of the metric that the task is ranked by.

    Raises:
        UserError: there is no such task.

    """
    task = make_task(settings.task)
    return next(metric for metric in task.metrics if metric.name == task.headline)


def trial_settings(settings: Settings) -> Settings:
    """Return the settings of a trial: what trains is the same, what only measures is left out."""
    return settings.model_copy(update={"eval_every": END_ONLY, "latency_samples": 0})


@contextmanager
def validation_for_test(prepared: Prepared) -> Iterator[Prepared]:
    """Yield the prepared data with the validation rows in the place of the test rows, under digests of its own."""
    with tempfile.TemporaryDirectory(prefix="tuning-", dir=tempdir.folder()) as name:
        there = Path(prepared.data).resolve()
        splits = {"train": "train", "validation": "validation", "test": "validation"}
        if (there / RETENTION).is_dir():
            splits[RETENTION] = RETENTION
        for split, source in splits.items():
            (Path(name) / split).symlink_to(there / source, target_is_directory=True)
        data = digest([prepared.digests.data, "validation rows for test rows"], 64)
        note = "the validation rows stand in the place of the test rows, none of which is read"
        yield prepared.model_copy(
            update={
                "data": name,
                "digests": prepared.digests.model_copy(update={"data": data}),
                "notes": {**prepared.notes, "a trial of tuning": note},
            }
        )


def turns(methods: Sequence[str], trials: int) -> Iterator[tuple[int, str]]:
    """Yield number and method of each trial: all first trials, then all second ones, methods shuffled in each round.

    A tuning that is cut short has then spent the same on every method, to one trial.
    """
    for number in range(trials):
        yield from ((number, name) for name in random.Random(number).sample(list(methods), len(methods)))  # noqa: S311


class _Tuning:
    """The studies of one call, and the record they make."""

    def __init__(
        self,
        folder: Path,
        blank: TuningRecord,
        before: TuningRecord | None,
        specs: Mapping[str, MethodSpec],
        studies: BaseStorage,
    ) -> None:
        self._folder, self._blank, self._specs = folder, blank, specs
        same = before is not None and _conditions(before) == _conditions(blank)
        earlier = before.methods if before is not None and same else ()
        self._earlier = tuple(tuned for tuned in earlier if tuned.name not in specs)
        self._studies = {name: self._study(spec, studies) for name, spec in specs.items()}

    def _study(self, spec: MethodSpec, studies: BaseStorage) -> Study:
        """Return the study under a name that other conditions don't share: what was tried there tells nothing here."""
        name = f"{spec.name} {digest([*_conditions(self._blank), spec.model_dump(mode='json')])}"
        return Study(studies, name, self._blank.sampler, spec.lr, self._blank.factor, self._blank.headline)

    def keep(self) -> TuningRecord:
        """Write trials.json: these methods, and those that an earlier call tuned under the same conditions."""
        now = tuple(
            TunedMethod(
                spec=self._specs[name], low=study.low, high=study.high, trials=study.trials, better=self._better
            )
            for name, study in self._studies.items()
        )
        record = self._blank.model_copy(update={"methods": (*self._earlier, *now)})
        write_atomically(self._folder / RECORD, record.model_dump_json(indent=1) + "\n")
        return record

    def run_missing(self, runner: Runner, trials: int) -> bool:
        """Run what is missing; return whether all is done."""
        runner.progress.skip(sum(min(trials, len(study.trials)) for study in self._studies.values()))
        for number, name in turns(list(self._studies), trials):
            study = self._studies[name]
            if number < len(study.trials):
                continue
            if not runner.may_begin():
                return False
            handle, lr = study.ask()
            try:
                record = self._run(name, lr, number, runner)
            except (launcher.Interrupted, KeyboardInterrupt):
                study.give_back(handle)
                return False
            trial = _trial(number, record, self._blank.headline.name)
            study.tell(handle, trial)
            self.keep()
            found = trial.status if trial.score is None else f"validation {self._blank.in_words(trial.score)}"
            runner.progress.say(f"{name} trial {number + 1} of {trials}: lr {lr:.3g}, {found} in {trial.seconds:.1f} s")
            if runner.fails_fast(record, more=self._left(trials)) and runner.ended_by:
                return False
        return True

    @property
    def _better(self) -> Literal["higher", "lower"]:
        return "lower" if self._blank.headline.better == "lower" else "higher"

    def _left(self, trials: int) -> bool:
        """Whether any of `trials` trials of a method is missing."""
        return any(len(study.trials) < trials for study in self._studies.values())

    def _run(self, name: str, lr: float, number: int, runner: Runner) -> RunRecord:
        """Return a trial's record: the one there is if a kill came between it and the study, else that of a new run."""
        spec = RunSpec(
            suite=f"{self._blank.suite}-tuning",
            settings=trial_settings(self._blank.settings),
            method=self._specs[name].model_copy(update={"lr": lr}),
            seed=FIRST_SEED + number,
        )
        record = runner.results.run_folder(spec).record()
        protocol = protocol_id(spec.settings, runner.prepared.digests)
        if record is not None and record.status != "interrupted" and record.protocol_id == protocol:
            runner.progress.skip(1)
            return record
        return runner.run(spec)


def _conditions(record: TuningRecord) -> list[object]:
    """Return what trials must share to be compared."""
    return [identity(record.settings), record.digests, record.sampler, record.factor]


def _trial(number: int, record: RunRecord, headline: str) -> Trial:
    ok = record.status == "ok"
    parameters = record.metrics.get("trainable_parameters")
    return Trial(
        number=number,
        lr=record.spec.method.lr,
        seed=record.spec.seed,
        status=record.status,
        score=record.metrics.get(headline) if ok else None,  # of the rows in the test rows' place
        loss=record.metrics.get("test_loss") if ok else None,
        seconds=record.seconds,
        samples=record.consumed.samples if record.consumed else None,
        parameters=None if parameters is None else int(parameters),
        run_id=record.run_id,
    )
