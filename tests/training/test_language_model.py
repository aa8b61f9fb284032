"""The causal language model computes what transformers and PEFT do, on fewer places; no batch is
waited for.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import language_models, tiny
from helpers.loops import Counts
from hpml_bench.builtin.tasks.sequence_classification import SequenceClassification
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.rows import Batch, Rows, write_rows
from hpml_bench.training import evaluation
from hpml_bench.training.model import load_backbone
from hpml_bench.training.trial import unused_parameters

TARGETS = int((language_models.texts()[2][:, 1:] != IGNORE_INDEX).sum())


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("kind", language_models.KINDS)
def test_loss_and_gradient_are_those_of_transformers(
    kind: str, model_folders: dict[str, Path]
) -> None:
    """Summed loss over the number of targets, and each weight's gradient, equal the model's own
    with `labels`.
    """
    ids, mask, labels = language_models.texts()
    theirs = plain(model_folders[kind])
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    expected.backward()
    model, _, task, _ = language_models.trained(model_folders[kind], "full", steps=0)
    loss = task.loss(model(ids, mask, labels), labels) / TARGETS
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(
            model.encoder.get_parameter(name).grad, weight.grad, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("lora", {}),
        ("lora", {"target": ["lm_head"]}),
        ("prompt_tuning", {"tokens": 5}),
    ],
)
@pytest.mark.parametrize("kind", language_models.KINDS)
def test_losses_of_many_logits_are_computed_in_parts(
    kind: str,
    method: str,
    options: dict[str, Any],
    model_folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loss and gradients are those of all logits at once; capped ones are computed whole."""
    ids, mask, labels = language_models.texts()
    folder = model_folders[kind]
    config = AutoConfig.from_pretrained(folder)
    if config.tie_word_embeddings:  # PEFT adapts no such output layer
        options = {key: value for key, value in options.items() if key != "target"}
    found = []
    for most in (10**6, 2 * language_models.VOCABULARY):
        monkeypatch.setattr("hpml_bench.training.causal_lm.CHUNK", most)
        model, _, task, _ = language_models.trained(folder, method, options, steps=0)
        model.train()
        model(ids[:1], mask[:1], labels[:1])  # at which it shows whether its logits are capped
        outputs = model(ids, mask, labels)
        loss = task.loss(outputs, labels)
        torch.autograd.backward(loss)
        found.append(
            (loss.detach(), [w.grad for w in model.parameters() if w.requires_grad], outputs.dim())
        )
    capped = bool(getattr(config.get_text_config(), "final_logit_softcapping", None))
    assert [of[2] for of in found] == [2, 2 if capped else 1]
    assert found[0][0].item() == pytest.approx(found[1][0].item(), rel=1e-6)
    for whole, parts in zip(found[0][1], found[1][1], strict=True):
        assert (whole - parts).norm() <= 1e-6 * whole.norm()


def test_of_a_model_of_several_media_the_text_model_is_trained(tmp_path: Path) -> None:
    """By each method that part alone, to the loss of transformers; no text reaches a vision tower.

    Dropout and cache are set in the text model's own configuration.
    """
    composite = language_models.save_of_images("gemma3", tmp_path)
    settings = language_models.spec_of(composite, "none", dropout=0.25).settings
    config = load_backbone(composite, settings, "language_model").config.get_text_config()
    assert (config.attention_dropout, config.use_cache) == (0.25, False)
    ids, mask, labels = language_models.texts()
    expected = plain(composite)(input_ids=ids, attention_mask=mask, labels=labels).loss.item()
    for name, options in (
        ("none", {}),
        ("full", {}),
        ("lora", {}),
        ("lora", {"target": ["q_proj"]}),
        ("prompt_tuning", {"tokens": 5}),
        ("adapter", {"size": 4}),
        ("peft", {"type": "LN_TUNING"}),
    ):
        model, _, task, _ = language_models.trained(composite, name, options, steps=0)
        trained = [part for part, weight in model.named_parameters() if weight.requires_grad]
        assert unused_parameters(model) == []
        assert not [part for part in trained if "vision_tower" in part or "projector" in part]
        if name not in {"prompt_tuning", "peft"}:
            assert task.loss(model(ids, mask, labels), labels).item() / TARGETS == pytest.approx(
                expected, rel=1e-4
            )


@pytest.mark.parametrize("method", ["lora", "prompt_tuning", "PREFIX_TUNING"])
@pytest.mark.parametrize("kind", ["GPT-2", "Gemma 2"])
def test_loss_with_a_method_is_that_of_peft(
    kind: str, method: str, model_folders: dict[str, Path]
) -> None:
    """PEFT's own forward pass with `labels` has the same loss, its virtual tokens learning
    nothing.
    """
    ids, mask, labels = language_models.texts()
    model, _, task, _ = language_models.trained(
        model_folders[kind], *language_models.METHODS[method]
    )
    with torch.no_grad():
        found = task.loss(model(ids, mask, labels), labels) / TARGETS
        expected = model.encoder(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_output_layer_sees_the_chosen_places_only(model_folders: dict[str, Path]) -> None:
    """As many hidden states as there are targets, one a text without labels; all of them for any
    other caller.
    """
    ids, mask, labels = language_models.texts()
    model = language_models.trained(model_folders["Llama"], "lora")[0]
    encoder: Any = model.encoder
    seen: list[tuple[int, ...]] = []
    encoder.get_output_embeddings().register_forward_hook(
        lambda layer, args, output: seen.append(tuple(args[0].shape))
    )
    with torch.no_grad():
        model(ids, mask, labels)
        model(ids, mask)
        model.encoder(input_ids=ids, attention_mask=mask)
        model.release()
    assert seen == [(TARGETS, 32), (4, 32), (4, 12, 32)]


def test_a_failed_pass_leaves_nothing_behind(model_folders: dict[str, Path]) -> None:
    """After an error the output layer computes all logits again, for whoever calls the model;
    released, it is bare.
    """
    ids, mask, labels = language_models.texts()
    model = language_models.trained(model_folders["GPT-2"], "none")[0]
    with pytest.raises(IndexError), torch.no_grad():
        model(ids + language_models.VOCABULARY, mask, labels)
    with torch.no_grad():
        assert model.encoder(input_ids=ids, attention_mask=mask).logits.shape == (
            4,
            12,
            language_models.VOCABULARY,
        )
    model.release()
    assert not model.encoder.get_output_embeddings()._forward_pre_hooks  # type: ignore[operator]


# An evaluation keeps its results on the device until the last batch


ELSEWHERE = torch.device("meta")


class Plain(torch.nn.Module):
    """A classifier [B, L] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, input_ids: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return input_ids.float().mean(1, keepdim=True) * self.weight


@torch.no_grad()
def test_batches_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the batches themselves nothing is copied between host and device for each: one
    batch or twelve.
    """
    rows = Rows(Path(tiny.prepared(tmp_path).data) / "test", 0)
    model: Any = Plain().to(ELSEWHERE)
    task = SequenceClassification(SequenceClassification.Options(), tuple("abc"))

    def to(batch: Batch, device: torch.device) -> Batch:
        parts = (batch.input_ids, batch.attention_mask, batch.labels)
        ids, mask, labels = (
            torch.empty(part.shape, dtype=part.dtype, device=device) for part in parts
        )
        return Batch(ids, mask, labels, batch.real_tokens)

    monkeypatch.setattr(Batch, "to", to)
    counts = []
    for size in (96, 8):
        settings, group = tiny.settings(eval_batch=size, world_size=1), Group(0, 1, ELSEWHERE)
        run: Any = SimpleNamespace(model=model, task=task, settings=settings, group=group)
        with Counts(
            lambda _, of: len({one.device.type for one in of if isinstance(one, torch.Tensor)}) > 1
        ) as copies:
            evaluation._answer(run, rows)
        counts.append(copies.count)
    assert counts[0] == counts[1]
    assert 0 < counts[0].total() <= 3


@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_logits_of_an_evaluation_are_bounded(
    method: str,
    model_folders: dict[str, Path],
    tmp_path: Path,
    group: Group,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows are read in smaller batches where they have many targets; losses differ by rounding
    at most.
    """
    model, _, task, spec = language_models.trained(model_folders["Llama"], method)
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, 100, length).tolist() for length in generator.integers(2, 30, 24)]
    prompts = [int(generator.integers(1, len(row))) for row in ids]
    labels = [[-100] * prompt + row[prompt:] for prompt, row in zip(prompts, ids, strict=True)]
    write_rows(tmp_path / "rows", [{"input_ids": ids, "label": labels}], pa.list_(pa.int32()))
    rows = Rows(tmp_path / "rows", language_models.PAD)
    settings = spec.settings.model_copy(update={"eval_batch": 24})
    given: list[torch.Size] = []
    model.register_forward_hook(lambda _, __, outputs: given.append(outputs.shape))
    run: Any = SimpleNamespace(model=model, task=task, settings=settings, group=group)
    with evaluation.evaluating(run):
        whole = evaluation._answer(run, rows)
    assert len(given) == 1
    monkeypatch.setattr(evaluation, "OUTPUTS", 40 * language_models.VOCABULARY)
    with evaluation.evaluating(run):
        parts = evaluation._answer(run, rows)
    assert max(count for count, _ in given[1:]) <= 40 < given[0][0]
    assert sum(count for count, _ in given[1:]) == given[0][0] == rows.targets.sum()
    torch.testing.assert_close(parts[:, 1], whole[:, 1], rtol=1e-5, atol=1e-6)
    assert torch.equal(parts[:, 0], whole[:, 0])
    answers = [rows.answers(found[found[:, 0].argsort(), 2:].numpy()) for found in (parts, whole)]
    assert all(np.array_equal(one, other) for one, other in zip(*answers, strict=True))
