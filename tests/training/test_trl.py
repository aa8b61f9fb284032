"""Chats with tool calls and reasoning: what is learnt of a row, and the losses of ten steps, are
TRL's.

tests/files/trl.json has them, made by `python -m helpers.trl`; where TRL is installed, it is asked
too.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import skips, tiny, trl
from helpers.loops import trained, trainer_of
from hpml_bench.data.prepare import prepare, preview
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Probe
from hpml_bench.plugins.rows import Rows
from hpml_bench.records.points import read_points
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("offline_cache")
THEIRS = json.loads(trl.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = trl.save_model(tmp_path_factory.mktemp("model"))
    trl.save_rows(folder, trl.ROWS)
    return folder


def settings(folder: Path, template: str, **options: Any) -> Settings:
    """Return settings whose test rows are all rows, and its training rows too."""
    uri = f"path:{folder / 'rows.jsonl'}"
    return tiny.settings(
        backbone=f"path:{folder}",
        task={
            "name": "causal_lm",
            "options": {"template": f"path:{trl.TEMPLATES / template}.jinja", **options},
        },
        dataset={"name": "text_files", "options": {"train": uri, "validation": uri, "test": uri}},
        global_batch=trl.BATCH,
        max_length=2048,
        steps=trl.STEPS,
        schedule="constant",
        lr_warmup=0.0,
        world_size=1,
        warmup_steps=0,
    )


def rows_of(folder: Path, template: str, **options: Any) -> tuple[Rows, list[int]]:
    """Return the prepared training rows, and the place of each row of the file among them."""
    prepared = prepare(settings(folder, template, **options))
    rows = Rows(Path(prepared.data) / "train", prepared.pad_id)
    questions = rows.column("question")
    return rows, [
        questions.index(
            next(m["content"] for m in reversed(row["messages"]) if m["role"] == "user")
        )
        for row in trl.ROWS
    ]


def learnt(rows: Rows, places: list[int]) -> list[list[tuple[str, bool]]]:
    assert rows.token_labels is not None
    labels = [rows.token_labels[place].tolist() for place in places]
    return [
        trl.runs(rows.tokens(place).tolist(), [label != IGNORE_INDEX for label in own])
        for place, own in zip(places, labels, strict=True)
    ]


def stripped(runs: list[Any]) -> list[tuple[str, bool]]:
    return [(bare, one) for text, one in runs if (bare := text.strip("\n"))]


@pytest.mark.parametrize("template", [*trl.MARKED, *trl.PLAIN])
def test_what_is_learnt_is_what_trl_learns(template: str, folder: Path) -> None:
    """Text by text; where TRL puts in a template of its own, but for line breaks at the answers'
    borders.
    """
    theirs = [[(text, one) for text, one in row] for row in THEIRS["rows"][template]]
    ours = learnt(*rows_of(folder, template))
    if template in trl.MARKED:
        assert ours == theirs
    assert list(map(stripped, ours)) == list(map(stripped, theirs))


def full(chosen: Settings) -> RunSpec:
    return RunSpec(
        suite="tiny",
        settings=chosen,
        method=MethodSpec(name="full", method="full", lr=trl.RATE),
        seed=0,
    )


def our_losses(folder: Path, group: Group) -> list[float]:
    _, places = rows_of(folder, trl.MARKED[0])
    trainer = trainer_of(full(settings(folder, trl.MARKED[0])), group)
    for step in range(trl.STEPS):
        trainer.step(
            step + 1, [places[(step * trl.BATCH + at) % len(places)] for at in range(trl.BATCH)]
        )
    return [step.loss for step in trainer.log.reduce()]


def test_ten_steps_have_the_losses_of_trl(folder: Path, group: Group) -> None:
    """Of the same rows in the same order, every weight trained by AdamW."""
    assert our_losses(folder, group) == pytest.approx(THEIRS["losses"], abs=2e-4)


class Gradients(Probe):
    """Keeps the gradients of the last step."""

    def start(self, run: Any) -> None:
        self.model = run.model.encoder

    def after_backward(self, index: int) -> None:
        self.found = {name: weight.grad.clone() for name, weight in self.model.named_parameters()}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts, saved with the loss of its routers, and the rows."""
    folder = tmp_path_factory.mktemp("experts")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3_moe",
        vocab_size=265,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        head_dim=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=2048,
        router_aux_loss_coef=0.5,
        output_router_logits=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    trl.tokenizer().save_pretrained(folder)
    trl.save_rows(folder, trl.ROWS)
    return folder


def of_routers(folder: Path, **changes: Any) -> RunSpec:
    """Return a run of `full` with half the routers' loss."""
    return full(settings(folder, trl.MARKED[0], router_loss=0.5).model_copy(update=changes))


def test_the_loss_of_routers_is_that_of_transformers(
    folder: Path, experts: Path, group: Group
) -> None:
    """As TRL adds it: the gradients are those of transformers' own loss with it; a model without
    experts is refused.
    """
    spec = of_routers(experts)
    probe = Gradients()
    trainer = trainer_of(spec, group, probe)
    probe.start(trainer)
    theirs = AutoModelForCausalLM.from_pretrained(experts, dtype=torch.float32).train()
    batch = trainer.train_rows.batch(np.array([0, 3]))
    theirs(batch.input_ids, batch.attention_mask, labels=batch.labels).loss.backward()
    trainer.step(1, [0, 3])
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(probe.found[name], weight.grad, rtol=1e-3, atol=1e-6)
    dense = of_routers(folder)
    with pytest.raises(
        UserError, match="router_loss is set, and the model gives no loss of routers"
    ):
        trainer_of(dense, group)


def test_ranks_and_micro_batches_share_the_loss_of_routers(
    experts: Path, group: Group, tmp_path: Path
) -> None:
    """Of row by row: two ranks with two micro-batches follow the path of one rank with four; the
    loss turns it.
    """
    spec = of_routers(experts, global_batch=4, micro_batch=1, steps=4, world_size=2)
    record = tiny.run(spec, prepare(spec.settings), tmp_path / "run")
    assert record.status == "ok", record.error
    points = read_points(tmp_path / "run")
    norms = []
    for weight in (0.5, 0.0):
        options = {**spec.settings.task.options, "router_loss": weight}
        task = spec.settings.task.model_copy(update={"options": options})
        alone = of_routers(experts, global_batch=4, micro_batch=1, steps=4, task=task)
        norms.append(trained(alone, group)[1].values("grad_norm"))
    launched = [point.value for point in points if point.metric == "grad_norm"]
    assert launched == pytest.approx(norms[0], rel=1e-4)
    assert launched[0] != pytest.approx(norms[1][0], rel=1e-2)


@pytest.mark.skipif(find_spec("trl") is None, reason=skips.NO_TRL)
def test_trl_of_this_machine_agrees(folder: Path, group: Group) -> None:
    """To 1e-6, on the same processor."""
    _, losses = trl.by_trl(trl.MARKED[0], folder, trl.ROWS)
    assert our_losses(folder, group) == pytest.approx(losses, abs=1e-6)


def test_a_preview_shows_calls_and_results(folder: Path) -> None:
    """As the model sees them, calls among what is learnt; the call that is asked for is the text
    of its tokens.
    """
    _, seen = preview(settings(folder, trl.MARKED[0], scorer="exact"), len(trl.ROWS))
    (only_call,) = (row for row in seen if any("Only call." in text for text, _ in row.pieces))
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'
    assert [text for text, one in only_call.pieces if one] == [
        f"<think>\n\n</think>\n\n{call}<|im_end|>\n"
    ]
    assert only_call.label == call
    assert any(
        "<tool_response>\n5\n</tool_response>" in text
        for row in seen
        for text, one in row.pieces
        if not one
    )
