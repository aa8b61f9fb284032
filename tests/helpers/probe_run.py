"""A run small enough to work a probe's figures out by hand."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from helpers import tiny
from hpml_bench.builtin.tasks.sequence_classification import SequenceClassification
from hpml_bench.plugins.method import Method
from hpml_bench.plugins.model import TaskModel, pool
from hpml_bench.plugins.probe import Evaluation, Run, Step
from hpml_bench.records.predictions import Predictions

CPU = torch.device("cpu")


class Encoder(torch.nn.Module):
    """Frozen weights (12) and trained biases (4); gives the hidden states [B, L, 4] of three
    features each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)
        self.linear.weight.requires_grad = False

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(
            last_hidden_state=self.linear(input_ids.float().unsqueeze(-1).expand(-1, -1, 3))
        )


def make_run(folder: Path, rank: int = 0, method: Any = None, **settings: Any) -> Run:
    """Return a run of one of two ranks: 4 trained parameters of 16 in the encoder, 25 in the
    head.
    """
    first = rank == 0
    group = SimpleNamespace(
        rank=rank, world=2, nodes=1, device=CPU, main=first, first_here=first, barrier=lambda: None
    )
    model = TaskModel(Encoder(), torch.nn.Linear(4, 5), partial(pool, pooling="last"))
    task, method = (
        SequenceClassification(SequenceClassification.Options(), tuple("abcde")),
        method or Nothing(None),
    )
    return Run(tiny.settings(**settings), group, model, method, task, Rows(), folder, 100.0)


class Nothing(Method):
    """A method whose hooks do nothing."""

    def build(self, backbone: Any) -> Any:
        return backbone


class Rows:
    """Ten test rows of one token."""

    def __len__(self) -> int:
        return 10

    def batch(self, indices: np.ndarray) -> Any:
        ids = torch.ones((len(indices), 1), dtype=torch.long)
        batch = SimpleNamespace(input_ids=ids, attention_mask=ids, more={})
        batch.to = lambda device: batch
        return batch


def step(index: int, *seconds: float, **changes: Any) -> Step:
    """Return a step of 8 samples, 40 tokens in 50 with padding, 16 virtual ones, as the first of
    its window.
    """
    ranks = seconds or (1.0,)
    values = {
        "loss": 1.0,
        "grad_norm": 1.0,
        "lr": 0.1,
        "samples": 8,
        "real_tokens": 40,
        "padded_tokens": 50,
    }
    values |= {"virtual_tokens": 16, "seconds": max(ranks)}
    return Step(index=index, rank_seconds=ranks, **(values | changes))


def evaluation(phase: str = "test", seconds: float = 0.5, step: int = 9) -> Evaluation:
    """Return an evaluation of five rows, three of them right."""
    labels, answers = np.array([0, 1, 2, 2, 4]), np.array([0, 1, 2, 1, 3])
    predictions = Predictions(np.arange(5), labels, answers, np.array([0.1, 0.2, 0.3, 0.4, 1.0]))
    metrics = SequenceClassification(SequenceClassification.Options(), tuple("abcde")).evaluate(
        predictions
    )
    return Evaluation(phase, step, predictions, metrics, seconds)
