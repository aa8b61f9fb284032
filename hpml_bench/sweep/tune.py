"""Tuning: trial by trial over all methods, resumed where it stopped, and its result as a suite
file.
"""

import math
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import yaml
from rich.console import Console

from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import preparation
from hpml_bench.plugins.method import check_methods
from hpml_bench.plugins.task import RETENTION, make_task
from hpml_bench.records.folder import ResultsFolder
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import RunRecord
from hpml_bench.records.tuning import FOLDER, RECORD, Sampler, Trial, TunedMethod, TuningRecord
from hpml_bench.suite import registry
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import MethodSpec, RunSpec, identity
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.execute import Ending, Execution, SweepProgress
from hpml_bench.sweep.plan import SweepRequest
from hpml_bench.sweep.resolve import resolve
from hpml_bench.system import disk, environment, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_model, write_atomically
from hpml_bench.system.packages import install_extras
from hpml_bench.system.signals import stoppable
from hpml_bench.system.text import digest
from hpml_bench.training.request import RunRequest

# trial k of every method has the seed 10,000 + k, beyond any seed of a comparison (at most 1,000)
FIRST_SEED = 10_000
FACTOR = 10.0  # the range: a tenth to ten times a method's rate, two decades for all
WORST = 1e30  # value beyond any score, finite as samplers require
END_ONLY = 10**9  # steps between evaluations, so that there is none before the last step


@dataclass(frozen=True)
class TuningRequest:
    """Trials that a call of `tune` requests."""

    sweep: SweepRequest  # the suite, its methods, limits
    trials: int  # number of trials of each method
    write: Path | None = (
        None  # file for the suite with the chosen rates; None for one beside the trials
    )
    sampler: Sampler = "qmc"
    factor: float = FACTOR  # rates are tried from a method's rate / factor to its rate x factor

    def methods(self) -> tuple[MethodSpec, ...]:
        """Return the methods that have a rate; raises UserError if there is none, or one can't
        be run here.
        """
        suite, names = self.sweep.suite, self.sweep.methods
        named = [suite.method(name) for name in (suite.methods if names is None else names)]
        specs = tuple(spec for spec in named if registry.plugin("methods", spec.method).trains)
        if not specs:
            raise UserError(
                f"suite {suite.name}: there is no method to tune; none of those named trains "
                f"anything"
            )
        check_methods(specs, resolve_devices(suite.settings))
        return specs


@dataclass(frozen=True)
class TuningResult:
    """Result of a tuning."""

    folder: Path
    record: TuningRecord
    suite_file: Path | None  # the suite with the chosen rates; None if the tuning ended early
    ending: Ending


def run_tuning(request: TuningRequest, console: Console) -> TuningResult:
    """Do the missing trials of every method; write trials.json and the suite with the chosen rates.

    A trial is a run of the suite's own budget, evaluated on the validation rows; ranks are given no
    path to the test rows. Raises UserError if Optuna is missing for `tpe`, a method is unknown, a
    source isn't available, or the folder is in use.
    """
    specs = request.methods()  # refused before a folder is made
    if request.sampler == "tpe":
        _optuna()
    sweep, folder = request.sweep, request.sweep.folder / FOLDER
    target = check_target(request.write or folder / f"{sweep.suite.name}-tuned.yaml")
    progress = SweepProgress(console, request.trials * len(specs), sweep.verbose)
    with ResultsFolder.open(folder, lock=folder.parent) as results, stoppable(), progress:
        execution = Execution(sweep.limits, progress)
        suite, notes = resolve(sweep.suite, folder.parent, sweep.limits)
        progress.say(f"preparing model and data of {suite.settings.backbone} ...")
        prepared = preparation.prepare(suite.settings, sweep.limits.max_seconds)
        prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
        task = make_task(suite.settings.task, rank_by=suite.settings.rank_by)
        blank = TuningRecord(
            suite=suite.name,
            sampler=request.sampler,
            factor=request.factor,
            settings=suite.settings,
            validation_rows=prepared.rows.get("validation", 0),
            environment=environment.describe(),
            methods=(),
            digests={key: value for key, value in prepared.digests if value},
            headline=next(metric for metric in task.metrics if metric.name == task.headline),
        )
        with validation_for_test(prepared) as substituted:
            trials = Trials(request, blank, specs, substituted, results, progress)
            ending = execution.execute(trials.requests(), trials.keep)
        record = trials.record()
        if ending.how == "done":
            write_suite(target, sweep.suite, record)
    return TuningResult(folder, record, target if ending.how == "done" else None, ending)


@contextmanager
def validation_for_test(prepared: Prepared) -> Iterator[Prepared]:
    """Yield the prepared data with the validation rows in the place of the test rows, under
    digests of its own.
    """
    with tempfile.TemporaryDirectory(prefix="tuning-", dir=temporary.folder()) as name:
        data_folder = Path(prepared.data).resolve()
        splits = {"train": "train", "validation": "validation", "test": "validation"}
        if (data_folder / RETENTION).is_dir():
            splits[RETENTION] = RETENTION
        for split, source in splits.items():
            (Path(name) / split).symlink_to(data_folder / source, target_is_directory=True)
        data = digest([prepared.digests.data, "validation rows for test rows"], 64)
        note = "the validation rows stand in the place of the test rows, none of which is read"
        digests = prepared.digests.model_copy(update={"data": data})
        notes = {**prepared.notes, "a trial of tuning": note}
        yield prepared.model_copy(update={"data": name, "digests": digests, "notes": notes})


def turns(methods: Sequence[str], trials: int) -> Iterator[tuple[int, str]]:
    """Yield number and method of each trial: all first trials, then all second ones, methods
    shuffled in each round.
    """
    # A tuning that is cut short has spent the same on every method, up to one trial.
    for number in range(trials):
        yield from (
            (number, name)
            for name in random.Random(number).sample(list(methods), len(methods))  # noqa: S311
        )


class Trials:
    """Trials of a tuning, in turns over the methods; those that trials.json holds of these
    conditions count.
    """

    def __init__(
        self,
        request: TuningRequest,
        blank: TuningRecord,
        specs: Sequence[MethodSpec],
        prepared: Prepared,
        results: ResultsFolder,
        progress: SweepProgress,
    ) -> None:
        """`blank`: the record without methods."""
        self._request, self._blank, self._specs = (
            request,
            blank,
            {spec.name: spec for spec in specs},
        )
        self._prepared, self._results, self._progress = prepared, results, progress
        before = read_model(results.path / RECORD, TuningRecord)
        earlier = (
            before.methods
            if before is not None and _conditions(before) == _conditions(blank)
            else ()
        )
        self._earlier = tuple(tuned for tuned in earlier if tuned.name not in self._specs)
        made = {
            tuned.name: tuned.trials
            for tuned in earlier
            if tuned.spec == self._specs.get(tuned.name)
        }
        self._trials = {name: list(made.get(name, ())) for name in self._specs}
        progress.skip(sum(min(request.trials, len(trials)) for trials in self._trials.values()))

    def requests(self) -> Iterator[RunRequest]:
        """Yield the missing trials one by one, each made with the results before it."""
        every = (
            END_ONLY if self._blank.settings.select == "last" else self._blank.settings.eval_every
        )
        unmeasured = {"eval_every": every, "latency_samples": 0}  # measurements that train nothing
        settings = self._blank.settings.model_copy(update=unmeasured)
        for number, name in turns(list(self._trials), self._request.trials):
            if number < len(self._trials[name]):
                continue
            lr = next_rate(self._blank, self._specs[name], self._trials[name])
            spec = RunSpec(
                suite=f"{self._blank.suite}-tuning",
                settings=settings,
                seed=FIRST_SEED + number,
                method=self._specs[name].model_copy(update={"lr": lr}),
            )
            run = self._results.run_folder(spec)
            record = run.record()
            if record is not None and Plan((), self._prepared.digests, since=0).settles(record):
                self._progress.skip(1)
                self.keep(record)  # a kill kept it out of trials.json
            else:
                limits = self._request.sweep.limits
                yield RunRequest(spec=spec, prepared=self._prepared, folder=run.path, limits=limits)

    def keep(self, record: RunRecord) -> None:
        name = record.spec.method.name
        measured = (
            record.metrics if record.status == "ok" else {}
        )  # on the rows in the test rows' place
        parameters = record.metrics.get("trainable_parameters")
        trial = Trial(
            number=record.spec.seed - FIRST_SEED,
            lr=record.spec.method.lr,
            seed=record.spec.seed,
            status=record.status,
            score=measured.get(self._blank.headline.name),
            loss=measured.get("test_loss"),
            seconds=record.seconds,
            samples=record.consumed.samples if record.consumed else None,
            parameters=None if parameters is None else int(parameters),
            run_id=record.run_id,
        )
        self._trials[name].append(trial)
        self.record()
        result = (
            trial.status
            if trial.score is None
            else f"validation {self._blank.in_words(trial.score)}"
        )
        count = f"trial {trial.number + 1} of {self._request.trials}"
        self._progress.say(f"{name} {count}: lr {trial.lr:.3g}, {result} in {trial.seconds:.1f} s")

    def record(self) -> TuningRecord:
        """Write trials.json: these methods, and those that an earlier call tuned under the same
        conditions.
        """
        better: Literal["lower", "higher"] = (
            "lower" if self._blank.headline.better == "lower" else "higher"
        )
        now = []
        for name, spec in self._specs.items():
            low, high, trials = (
                spec.lr / self._blank.factor,
                spec.lr * self._blank.factor,
                tuple(self._trials[name]),
            )
            now.append(TunedMethod(spec=spec, low=low, high=high, trials=trials, better=better))
        record = self._blank.model_copy(update={"methods": (*self._earlier, *now)})
        write_atomically(self._results.path / RECORD, record.model_dump_json(indent=1) + "\n")
        return record


def _conditions(record: TuningRecord) -> list[object]:
    """Return the conditions that trials must share to be compared."""
    return [identity(record.settings), record.digests, record.sampler, record.factor]


def next_rate(record: TuningRecord, spec: MethodSpec, trials: Sequence[Trial]) -> float:
    """Return the rate of a method's trial after these, to two digits; the first takes the
    suite's own.
    """
    # It depends on the trials before it alone, so that an interrupted tuning tries what an unbroken
    # one does.
    low, high = spec.lr / record.factor, spec.lr * record.factor
    if not trials:
        return spec.lr
    if record.sampler == "tpe":
        optuna, higher = _optuna(), record.headline.better == "higher"
        scale = {"lr": optuna.distributions.FloatDistribution(low, high, log=True)}
        sampler = optuna.samplers.TPESampler(seed=len(trials), n_startup_trials=4)
        study = optuna.create_study(sampler=sampler, direction="maximize" if higher else "minimize")
        worst = -WORST if higher else WORST  # for a trial that did not end well
        for trial in trials:
            rate, value = min(max(trial.lr, low), high), trial.ended[0] if trial.ended else worst
            study.add_trial(
                optuna.trial.create_trial(params={"lr": rate}, distributions=scale, value=value)
            )
        return float(f"{study.ask(scale).params['lr']:.2g}")
    from scipy.stats.qmc import Sobol

    # one sequence for all methods: each is tried at the same multiples of its own rate
    sequence = Sobol(1, scramble=True, seed=0)
    share = [float(sequence.random()[0, 0]) for _ in trials][-1]
    return float(f"{math.exp(math.log(low) + share * (math.log(high) - math.log(low))):.2g}")


def _optuna() -> ModuleType:
    """Return the quiet library; UserError where it is missing."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            f"--sampler tpe needs Optuna, which is not installed: {install_extras('tune')}"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def check_target(path: Path, option: str = "--write", *, fresh: bool = False) -> Path:
    """Return an option's path if a suite can be written there; else UserError. `fresh`: no file
    may be there.
    """
    if path.suffix not in {".yaml", ".yml"} or not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", path.stem
    ):
        raise UserError(
            f"{option} {path}: the file's name becomes the suite's: letters, digits, - and _, then "
            ".yaml; choose another"
        )
    if fresh and path.exists():
        raise UserError(f"{option} {path}: there is such a file; remove it, or choose another name")
    disk.make_folder(path.parent, f"{option} {path}: the folder", "choose another")
    return path


def write_suite(path: Path, suite: Suite, record: TuningRecord) -> None:
    """Write the suite, named as the file, with each tuned method's chosen rate; UserError if it
    can't be written.
    """
    content = suite.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    for tuned in record.methods:
        if tuned.name not in content["methods"]:  # named by --methods, as in peft:IA3
            content["methods"][tuned.name] = {
                "method": tuned.spec.method,
                "options": dict(tuned.spec.options),
            }
        if tuned.rated and tuned.best is not None:
            content["methods"][tuned.name]["lr"] = tuned.chosen
    trials = ", ".join(sorted({str(len(tuned.trials)) for tuned in record.methods}))
    head = (
        f"# The suite {suite.name} with learning rates chosen on its validation rows by "
        f"`hpml-bench tune`:\n"
        f"# {trials} trials a method, from 1/{record.factor:g} to {record.factor:g} times its "
        f"rate.\n"
    )
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118)
    try:
        write_atomically(path, head + body)
    except OSError as error:
        raise UserError(
            f"{path}: can't be written: {error.strerror}; choose another with --write"
        ) from None
