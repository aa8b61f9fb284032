"""An evaluation keeps its results on the device until the last batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from helpers import language_models, tiny
from helpers.loops import Counts
from hpml_bench.builtin.tasks.sequence_classification import SequenceClassification
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.rows import Batch, Rows, write_rows
from hpml_bench.training import evaluation

ELSEWHERE = torch.device("meta")


def crosses(_: str, values: Sequence[Any]) -> bool:
    """Whether an operator copies between the host and a device."""
    return len({value.device.type for value in values if isinstance(value, torch.Tensor)}) > 1


class Plain(torch.nn.Module):
    """A classifier [B, L] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, input_ids: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return input_ids.float().mean(1, keepdim=True) * self.weight


def test_batches_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the batches themselves nothing is copied between host and device for each: one batch or twelve."""
    rows = Rows(Path(tiny.prepared(tmp_path).data) / "test", 0)
    model: Any = Plain().to(ELSEWHERE)
    task = SequenceClassification(None, tuple("abc"))

    def to(batch: Batch, device: torch.device) -> Batch:
        parts = (batch.input_ids, batch.attention_mask, batch.labels)
        ids, mask, labels = (torch.empty(part.shape, dtype=part.dtype, device=device) for part in parts)
        return Batch(ids, mask, labels, batch.real_tokens)

    monkeypatch.setattr(Batch, "to", to)
    counts = []
    for size in (96, 8):
        settings = tiny.settings(eval_batch=size, world_size=1)
        with Counts(crosses) as copies:
            evaluation._answer(model, task, rows, settings, Group(0, 1, ELSEWHERE))
        counts.append(copies.count)
    assert counts[0] == counts[1]
    assert 0 < counts[0].total() <= 3


@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_logits_of_an_evaluation_are_bounded(
    method: str, language_model_folders: dict[str, Path], tmp_path: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are read in smaller batches where they have many targets; losses differ by rounding at most."""
    model, _, task, spec = language_models.trained(language_model_folders["Llama"], method)
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, 100, length).tolist() for length in generator.integers(2, 30, 24)]
    prompts = [int(generator.integers(1, len(row))) for row in ids]
    labels = [[-100] * prompt + row[prompt:] for prompt, row in zip(prompts, ids, strict=True)]
    write_rows(tmp_path / "rows", [{"input_ids": ids, "label": labels}], pa.list_(pa.int32()))
    rows = Rows(tmp_path / "rows", language_models.PAD)
    settings = spec.settings.model_copy(update={"eval_batch": 24})
    given: list[torch.Size] = []
    model.register_forward_hook(lambda _, __, outputs: given.append(outputs.shape))
    whole = evaluation._answer(model, task, rows, settings, group)
    assert len(given) == 1
    monkeypatch.setattr(evaluation, "OUTPUTS", 40 * language_models.VOCABULARY)
    parts = evaluation._answer(model, task, rows, settings, group)
    assert max(count for count, _ in given[1:]) <= 40 < given[0][0]
    assert sum(count for count, _ in given[1:]) == given[0][0] == rows.targets.sum()
    torch.testing.assert_close(parts[:, 1], whole[:, 1], rtol=1e-5, atol=1e-6)
    assert torch.equal(parts[:, 0], whole[:, 0])
    answers = [rows.answers(found[found[:, 0].argsort(), 2:].numpy()) for found in (parts, whole)]
    assert all(np.array_equal(one, other) for one, other in zip(*answers, strict=True))
