"""Selection of a run's step: the last one, or that with the best score on the validation rows; an early end."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor

from hpml_bench.plugins.probe import Evaluation
from hpml_bench.system.errors import Unsupported
from hpml_bench.training.assembly import Assembly


class Selection:
    """Weights of the best step so far, and the method's own state; none where the last step counts.

    Raises Unsupported: the method keeps a state that it doesn't give.
    """

    def __init__(self, run: Assembly) -> None:
        self._run, self._model, self._task, self._wanted = run, run.model, run.task, run.settings.select != "last"
        self._scores: dict[int, float] = {}
        self._kept: dict[str, Tensor] = {}
        self._method: dict[str, Any] = {}
        if self._wanted and run.method.state(run.model.encoder) is None:
            raise Unsupported(f"select {run.settings.select} needs the method's state, and no hook `state` gives it")
        self.ended = False
        """Whether the training ends here, before its last step; the same on all ranks."""

    def see(self, evaluation: Evaluation) -> None:
        """Keep the weights after an evaluation of the validation rows that is better than all before it."""
        if self._wanted:
            score = torch.tensor([self._task.validation_score(evaluation.metrics)], dtype=torch.float64)
            # rank 0's, which is recorded: hosts of another kind may round the last digit otherwise
            self._scores[evaluation.step] = self._run.group.gather(score)[0].item()
            if self._task.best_step(self._scores) == evaluation.step:
                self._kept = {name: value.detach().to("cpu", copy=True) for name, value in self._changing().items()}
                self._method = deepcopy(self._run.method.state(self._model.encoder) or {})
            self._end()

    def restore(self) -> None:
        """Give model and method what they were at the step that was selected, where one was."""
        changing = self._changing()
        with torch.no_grad():
            for name, value in self._kept.items():
                changing[name].copy_(value)
        if self._kept:
            self._run.method.load(self._model.encoder, self._method)

    def state_dict(self) -> dict[str, Any]:
        scores = [[step, score] for step, score in self._scores.items()]
        return {"scores": scores, "kept": self._kept, "method": self._method}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scores = {int(step): score for step, score in state["scores"]}
        self._kept, self._method = state["kept"], state["method"]
        self._end()

    def _end(self) -> None:
        self.ended = self._task.early_end(self._scores, self._run.settings.patience) is not None

    def _changing(self) -> dict[str, Tensor]:
        """Return what training changes: trained weights, and buffers."""
        trained = {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}
        return cast(dict[str, Tensor], trained) | dict(self._model.named_buffers())
