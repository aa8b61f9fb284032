"""Study of a method's trials by Optuna, on disk: chooses the next rate and keeps its result."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.records.run import Metric
from hpml_bench.records.tuning import Sampler, Trial
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    import optuna

UNBOUNDED = 1e30
"""Value beyond any score, finite as samplers require."""


def open_storage(folder: Path) -> optuna.storages.BaseStorage:
    """Open the journal of a tuning's studies, which survives a kill at any moment; UserError without Optuna."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise UserError("tune needs Optuna, which is not installed: pip install 'hpml-bench[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / "journal.log"
    # The lock of a killed process: by the lock on the results folder no other process works here.
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


class Study:
    """Trials of one method. The first takes the suite's own rate, so that it can be chosen too."""

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        name: str,
        sampler: Sampler,
        default: float,
        factor: float,
        metric: Metric,
    ) -> None:
        """Open or create the study; `metric` is the score by which trials are ranked."""
        import optuna

        self._metric = metric
        self.default, self.low, self.high = default, default / factor, default * factor
        self._sampler = sampler
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            pruner=optuna.pruners.NopPruner(),
            direction="maximize" if metric.better == "higher" else "minimize",
            load_if_exists=True,
        )
        if not self._study.trials:
            self._study.enqueue_trial({"lr": default})
        for unfinished in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            self._again(unfinished)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Complete trials, in their order."""
        import optuna

        complete = self._study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        return tuple(Trial.model_validate(trial.user_attrs["trial"]) for trial in complete)

    def ask(self) -> tuple[optuna.Trial, float]:
        """Return a handle for `tell`, and the rate to try, rounded to two significant digits."""
        self._study.sampler = _make_sampler(self._sampler, len(self.trials))
        handle = self._study.ask()
        lr = handle.suggest_float("lr", self.low, self.high, log=True)
        return handle, lr if lr == self.default else float(f"{lr:.2g}")

    def tell(self, handle: optuna.Trial, trial: Trial) -> None:
        """Keep the result of a trial; one that did not end well counts with the worst value."""
        handle.set_user_attr("trial", trial.model_dump(mode="json"))
        self._study.tell(handle, trial.ended[0] if trial.ended else self._worst)

    @property
    def _worst(self) -> float:
        """Worst possible score; if it has no bound, one beyond all measured scores."""
        least, most = self._metric.bounds
        bound, beyond = (least, -UNBOUNDED) if self._metric.better == "higher" else (most, UNBOUNDED)
        return beyond if bound is None else bound

    def give_back(self, handle: optuna.Trial) -> None:
        """Discard a trial; its rate will be tried again."""
        self._again(self._study.trials[handle.number])

    def _again(self, trial: optuna.trial.FrozenTrial) -> None:
        import optuna

        self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if rate := trial.params or trial.system_attrs.get("fixed_params"):
            self._study.enqueue_trial(rate)


def _make_sampler(sampler: Sampler, place: int) -> optuna.samplers.BaseSampler:
    """Return a sampler whose rate for a trial depends on the trials before it alone, as in an uninterrupted tuning.

    Sobol's sequence is one for all methods: each is tried at the same multiples of its own rate.
    """
    import optuna

    if sampler == "tpe":
        return optuna.samplers.TPESampler(seed=place, n_startup_trials=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.QMCSampler(scramble=True, seed=0)
