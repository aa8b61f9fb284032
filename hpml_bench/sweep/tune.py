"""Tuning: trial by trial over all methods, resumed where it stopped, and its result as a suite
file.

In comes a `TuningRequest`, as `tune` makes it. Out go a run for each trial and the record of all,
trials.json, in the folder `tuning` of the suite's results, and a suite file with the chosen rates.
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
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings, identity
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.execute import Ending, Execution, SweepProgress
from hpml_bench.sweep.request import SweepRequest
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
    # file for the suite with the chosen rates; None for one beside the trials
    write: Path | None = None
    sampler: Sampler = "qmc"
    factor: float = FACTOR  # rates are tried from a method's rate / factor to its rate x factor

    def methods(self) -> tuple[MethodSpec, ...]:
        """Return the requested methods that train, and so have a rate; raises UserError if there
        is none, one is unknown, or one can't be run here.
        """
        suite = self.sweep.suite
        names = suite.methods if self.sweep.methods is None else self.sweep.methods
        requested = [suite.method(name) for name in names]
        specs = tuple(spec for spec in requested if registry.plugin("methods", spec.method).trains)
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
    # methods and sampler are refused before a folder is made
    specs = request.methods()
    if request.sampler == "tpe":
        _optuna()
    sweep = request.sweep
    folder = sweep.folder / FOLDER
    target = check_target(request.write or folder / f"{sweep.suite.name}-tuned.yaml")
    progress = SweepProgress(console, request.trials * len(specs), sweep.verbose)
    with ResultsFolder.open(folder, lock=folder.parent) as results, stoppable(), progress:
        execution = Execution(sweep.limits, progress)
        suite, notes = resolve(sweep.suite, folder.parent, sweep.limits)
        progress.say(f"preparing model and data of {suite.settings.backbone} ...")
        prepared = preparation.prepare(suite.settings, sweep.limits.max_seconds)
        prepared = prepared.model_copy(update={"notes": prepared.notes | notes})
        blank = _blank_record(request, suite, prepared)
        with validation_for_test(prepared) as substituted:
            trials = Trials(request, blank, specs, substituted, results, progress)
            ending = execution.execute(trials.requests(), trials.keep)
        record = trials.record()
        suite_file = None
        if ending.how == "done":
            # the suite as requested: what it leaves to a machine stays open
            write_suite(target, sweep.suite, record)
            suite_file = target
    return TuningResult(folder, record, suite_file, ending)


def _blank_record(request: TuningRequest, suite: Suite, prepared: Prepared) -> TuningRecord:
    """Return the record of a tuning without its methods; `suite` has resolved settings.

    Its digests are those of the suite's own data, as in the comparison's records.
    """
    task = make_task(suite.settings.task, rank_by=suite.settings.rank_by)
    return TuningRecord(
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


@contextmanager
def validation_for_test(prepared: Prepared) -> Iterator[Prepared]:
    """Yield the prepared data with the validation rows in the place of the test rows, under
    digests of its own.
    """
    with tempfile.TemporaryDirectory(prefix="tuning-", dir=temporary.folder()) as name:
        data_folder = Path(prepared.data).resolve()
        source_of_split = {"train": "train", "validation": "validation", "test": "validation"}
        if (data_folder / RETENTION).is_dir():
            source_of_split[RETENTION] = RETENTION
        for split, source in source_of_split.items():
            (Path(name) / split).symlink_to(data_folder / source, target_is_directory=True)
        # by digests of its own no trial can be taken for a run of the comparison
        data = digest([prepared.digests.data, "validation rows for test rows"], 64)
        note = "the validation rows stand in the place of the test rows, none of which is read"
        digests = prepared.digests.model_copy(update={"data": data})
        notes = {**prepared.notes, "a trial of tuning": note}
        yield prepared.model_copy(update={"data": name, "digests": digests, "notes": notes})


def turns(methods: Sequence[str], trials: int) -> Iterator[tuple[int, str]]:
    """Yield number and method of each trial: all first trials, then all second ones, methods
    shuffled in each round.

    So a tuning that is cut short has spent the same on every method, up to one trial.
    """
    for number in range(trials):
        # by the number alone, so that a tuning that is resumed keeps its order
        shuffled = random.Random(number).sample(list(methods), len(methods))  # noqa: S311
        for name in shuffled:
            yield number, name


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
        """Take over the trials that trials.json holds, and tell `progress` how many count.

        Under the same conditions, those of a requested method count, also beyond the requested
        number, if the method is the same; of a changed one they are dropped. Those of other methods
        are kept aside: they stay in the record as they are. Under other conditions all are dropped.

        `blank`: the record without methods. `prepared`: the data with the validation rows in the
        place of the test rows.
        """
        self._request, self._blank = request, blank
        self._specs = {spec.name: spec for spec in specs}
        self._prepared, self._results, self._progress = prepared, results, progress

        before = read_model(results.path / RECORD, TuningRecord)
        tuned_before: tuple[TunedMethod, ...] = ()
        if before is not None and _conditions(before) == _conditions(blank):
            tuned_before = before.methods
        self._kept_aside: list[TunedMethod] = []
        self._trials: dict[str, list[Trial]] = {name: [] for name in self._specs}
        for tuned in tuned_before:
            if tuned.name not in self._specs:
                self._kept_aside.append(tuned)
            elif tuned.spec == self._specs[tuned.name]:
                self._trials[tuned.name] = list(tuned.trials)
        progress.skip(sum(min(request.trials, len(trials)) for trials in self._trials.values()))

    def requests(self) -> Iterator[RunRequest]:
        """Yield the missing trials one by one, each made with the results before it.

        The next one is made when it is taken, so that `keep` must have got the record of the one
        before. A trial whose own record was written, but not trials.json, isn't yielded: it is
        kept.
        """
        settings = self._settings_of_trials()
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
            # since=0: a trial that failed counts too, and isn't done again
            if record is not None and Plan((), self._prepared.digests, since=0).settles(record):
                self._progress.skip(1)
                self.keep(record)  # a kill kept it out of trials.json
                continue
            yield RunRequest(
                spec=spec,
                prepared=self._prepared,
                folder=run.path,
                limits=self._request.sweep.limits,
            )

    def _settings_of_trials(self) -> Settings:
        """Return the suite's settings without the measurements that change no trial's result."""
        settings = self._blank.settings
        # evaluations train nothing, but select the step that counts, unless it is always the last
        eval_every = END_ONLY if settings.select == "last" else settings.eval_every
        return settings.model_copy(update={"eval_every": eval_every, "latency_samples": 0})

    def keep(self, record: RunRecord) -> None:
        """Take a run's record as its method's next trial, write trials.json, and print a line."""
        spec = record.spec
        # on the validation rows, which stand in the test rows' place
        measured = record.metrics if record.status == "ok" else {}
        parameters = record.metrics.get("trainable_parameters")
        trial = Trial(
            number=spec.seed - FIRST_SEED,
            lr=spec.method.lr,
            seed=spec.seed,
            status=record.status,
            score=measured.get(self._blank.headline.name),
            loss=measured.get("test_loss"),
            seconds=record.seconds,
            samples=record.consumed.samples if record.consumed else None,
            parameters=None if parameters is None else int(parameters),
            run_id=record.run_id,
        )
        self._trials[spec.method.name].append(trial)
        self.record()
        if trial.score is None:
            result: str = trial.status
        else:
            result = f"validation {self._blank.in_words(trial.score)}"
        count = f"trial {trial.number + 1} of {self._request.trials}"
        self._progress.say(
            f"{spec.method.name} {count}: lr {trial.lr:.3g}, {result} in {trial.seconds:.1f} s"
        )

    def record(self) -> TuningRecord:
        """Write trials.json: these methods, and those that an earlier call tuned under the same
        conditions. Return it.
        """
        # a metric that is better neither way counts as better where it is higher
        better: Literal["lower", "higher"] = (
            "lower" if self._blank.headline.better == "lower" else "higher"
        )
        methods = list(self._kept_aside)
        for name, spec in self._specs.items():
            low, high = _range(self._blank, spec)
            trials = tuple(self._trials[name])
            methods.append(TunedMethod(spec=spec, low=low, high=high, trials=trials, better=better))
        record = self._blank.model_copy(update={"methods": tuple(methods)})
        write_atomically(self._results.path / RECORD, record.model_dump_json(indent=1) + "\n")
        return record


def _conditions(record: TuningRecord) -> list[object]:
    """Return the conditions that trials must share to be compared."""
    return [identity(record.settings), record.digests, record.sampler, record.factor]


def _range(record: TuningRecord, spec: MethodSpec) -> tuple[float, float]:
    """Return the lowest and the highest rate to try for a method."""
    return spec.lr / record.factor, spec.lr * record.factor


def next_rate(record: TuningRecord, spec: MethodSpec, trials: Sequence[Trial]) -> float:
    """Return the rate of a method's trial after these, to two digits; the first takes the
    suite's own, as it is.

    It depends on the method's trials before it alone, not on a clock, another method or the call
    that asks, so that an interrupted tuning tries what an unbroken one does. UserError where the
    sampler is `tpe` and Optuna is missing.
    """
    if not trials:
        return spec.lr
    low, high = _range(record, spec)
    if record.sampler == "tpe":
        higher_is_better = record.headline.better == "higher"
        rate = _rate_by_estimator(low, high, trials, higher_is_better=higher_is_better)
    else:
        rate = _rate_by_sequence(low, high, len(trials))
    return float(f"{rate:.2g}")


def _rate_by_estimator(
    low: float, high: float, trials: Sequence[Trial], *, higher_is_better: bool
) -> float:
    """Return the rate that Optuna's tree-structured Parzen estimator draws after these trials; as
    long as there are fewer than four, it draws at random.
    """
    optuna = _optuna()
    scale = {"lr": optuna.distributions.FloatDistribution(low, high, log=True)}
    # the number of trials as seed, so that no generator's state need be kept from trial to trial
    sampler = optuna.samplers.TPESampler(seed=len(trials), n_startup_trials=4)
    direction = "maximize" if higher_is_better else "minimize"
    study = optuna.create_study(sampler=sampler, direction=direction)
    worst = -WORST if higher_is_better else WORST  # for a trial that did not end well
    for trial in trials:
        # a rate was rounded to two digits, perhaps to one beyond the range, which Optuna refuses
        rate = min(max(trial.lr, low), high)
        score = worst
        if trial.ended is not None:
            score, _ = trial.ended
        study.add_trial(
            optuna.trial.create_trial(params={"lr": rate}, distributions=scale, value=score)
        )
    return float(study.ask(scale).params["lr"])


def _rate_by_sequence(low: float, high: float, number: int) -> float:
    """Return the rate at a point of Sobol's sequence, which fills the range evenly in log; `number`
    counts from 1.
    """
    from scipy.stats.qmc import Sobol

    # one sequence for all methods: each is tried at the same multiples of its own rate
    sequence = Sobol(1, scramble=True, seed=0)
    # point by point: scipy warns of numbers of points that aren't powers of two
    points = [float(sequence.random()[0, 0]) for _ in range(number)]
    share = points[-1]
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


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
    may be there. The folder of the file is made.
    """
    is_yaml = path.suffix in {".yaml", ".yml"}
    if not is_yaml or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", path.stem):
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

    A method whose trials all failed, or that trains no parameter at its rate, keeps what the suite
    says of it. Methods that the suite doesn't have, but `record` does, are added.
    """
    # without its name it has that of its file
    content = suite.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    methods = content["methods"]
    for tuned in record.methods:
        if tuned.name not in methods:  # named by --methods, as in peft:IA3
            methods[tuned.name] = {
                "method": tuned.spec.method,
                "options": dict(tuned.spec.options),
            }
        if tuned.rated and tuned.best is not None:
            methods[tuned.name]["lr"] = tuned.chosen
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
