"""Selection of a run's step: the last one, or that with the best score on the validation rows."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from hpml_bench.plugins.probe import Evaluation
from hpml_bench.training.assembly import Assembly


class Selection:
    """Weights of the best step so far; none where the last step counts."""

    def __init__(self, run: Assembly) -> None:
        self._model, self._task, self._wanted = run.model, run.task, run.settings.select == "best"
        self._scores: dict[int, float] = {}
        self._kept: dict[str, Tensor] = {}

    def see(self, evaluation: Evaluation) -> None:
        """Keep the weights after an evaluation of the validation rows that is better than all before it."""
        if self._wanted:
            self._scores[evaluation.step] = self._task.validation_score(evaluation.metrics)
            if self._task.best_step(self._scores) == evaluation.step:
                self._kept = {name: value.detach().to("cpu", copy=True) for name, value in self._changing().items()}

    def restore(self) -> None:
        """Give the model the weights of the step that was selected, where one was."""
        changing = self._changing()
        with torch.no_grad():
            for name, value in self._kept.items():
                changing[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"scores": [[step, score] for step, score in self._scores.items()], "kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scores = {int(step): score for step, score in state["scores"]}
        self._kept = state["kept"]

    def _changing(self) -> dict[str, Tensor]:
        """Return what training changes: trained weights, and buffers."""
        trained = {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}
        return cast(dict[str, Tensor], trained) | dict(self._model.named_buffers())
