"""Probes of language models: forgetting, merging, conversion, generation against what
transformers and PEFT compute.
"""

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import loops
from hpml_bench.builtin.methods.lora import LoRA
from hpml_bench.builtin.probes.conversion import ConversionProbe
from hpml_bench.builtin.probes.forgetting import ForgettingProbe
from hpml_bench.builtin.probes.generation import GenerationProbe
from hpml_bench.builtin.probes.merging import MergingProbe
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.probe import Evaluation, Probe, Run
from hpml_bench.suite.settings import MethodSpec
from hpml_bench.training.assembly import assemble
from hpml_bench.training.trainer import Evaluator, make_trainer

GENERAL = [" ".join(f"w{(i * j) % 150}" for j in range(1, 3 + i % 7)) for i in range(1, 31)]

ANSWERS = {"scorer": "exact", "max_new_tokens": 3}
converts = pytest.mark.skipif(
    not hasattr(peft, "convert_to_lora"), reason="PEFT converts to LoRA from 0.19 on"
)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forgetting")
    (folder / "general.txt").write_text("\n".join(GENERAL) + "\n")
    return folder


def run_of(
    folder: Path,
    group: Group,
    method: str | dict[str, Any],
    kind: type[Probe],
    options: dict[str, Any],
    **changes: Any,
) -> tuple[Evaluator, Probe, Run]:
    """Start a probe on a run that has taken no step, of a method's name or of PEFT's options."""
    given = ("peft", method) if isinstance(method, dict) else (method,)
    spec = loops.run_of(
        folder,
        "causal_lm",
        *given,
        task={"name": "causal_lm", "options": options},
        steps=6,
        **changes,
    )
    probe, assembled = kind(), assemble(spec, prepare(spec.settings), group)
    run = replace(assembled, folder=folder, began=time.monotonic())
    probe.start(run)
    return make_trainer(run, [probe], lambda _: None), probe, run


def measured(
    folder: Path,
    group: Group,
    method: str | dict[str, Any],
    kind: type[Probe],
    options: dict[str, Any],
    **changes: Any,
) -> tuple[dict[str, Any], Any, Run, Evaluation]:
    """Go through a run; return what the probe found, the trained encoder as it was before, and
    the test evaluation.
    """
    trainer, probe, run = run_of(folder, group, method, kind, options, **changes)
    trainer.train()
    encoder = copy.deepcopy(trainer.model.encoder)
    evaluation = trainer.evaluate(run.test, "test", trainer.steps)
    return probe.stop(), encoder.eval(), run, evaluation


@torch.no_grad()
def loss_of_test_rows(model: Any, run: Run) -> float:
    """Return the loss per token as transformers gives it, row by row."""
    total = 0.0
    for row in range(len(run.test)):
        batch = run.test.batch(np.array([row]))
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        total += float(loss) * int(run.test.targets[row])
    return total / int(run.test.targets.sum())


@torch.no_grad()
def loss_of_texts(model: Any, folder: Path, texts: list[str], most: int = 64) -> float:
    """Return the loss per token as PEFT's method comparison counts it: of a text's tokens but
    the first, one by one.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    total, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=most)["input_ids"]])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[
            0, -ids.shape[1] :
        ]
        total += float(cross_entropy(logits[:-1], ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    return total / tokens


# Forgetting


@pytest.mark.parametrize("method", ["none", "full", "prompt_tuning"])
def test_forgetting_is_the_loss_after_less_the_loss_before(
    method: str, text_folder: Path, group: Group
) -> None:
    """Of all texts, by transformers' and PEFT's own forward passes; its error is near the
    jackknife's over texts.
    """
    options = {"retention": f"path:{text_folder / 'general.txt'}"}
    found, encoder, _, _ = measured(text_folder, group, method, ForgettingProbe, options)
    before = loss_of_texts(
        AutoModelForCausalLM.from_pretrained(text_folder / "model").eval(), text_folder, GENERAL
    )
    after = loss_of_texts(encoder, text_folder, GENERAL)
    assert abs(after - before) > 0.01 or method == "none"
    assert found["base_retention_loss"] == pytest.approx(before, rel=1e-5)
    assert found["retention_loss"] == pytest.approx(after, rel=1e-5)
    assert found["forgetting"] == pytest.approx(
        after - before, abs=1e-4 if method != "none" else 1e-6
    )
    if method != "full":
        return
    base = AutoModelForCausalLM.from_pretrained(text_folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(text_folder / "model")
    tokens = np.array([len(tokenizer(text)["input_ids"]) - 1 for text in GENERAL])
    rises = tokens * [
        loss_of_texts(encoder, text_folder, [t]) - loss_of_texts(base, text_folder, [t])
        for t in GENERAL
    ]
    without = (rises.sum() - rises) / (tokens.sum() - tokens)
    k = len(GENERAL)
    jackknife = np.sqrt((k - 1) / k * np.square(without - without.mean()).sum())
    assert found["forgetting_error"] == pytest.approx(jackknife, rel=0.1)


def test_long_texts_are_cut_and_none_ends_with_a_token(text_folder: Path, group: Group) -> None:
    """The first `max_length` tokens of `retention_samples` texts, and no end token; their number
    is in the record.
    """
    options = {"retention": f"path:{text_folder / 'general.txt'}", "retention_samples": 15}
    found, encoder, run, _ = measured(
        text_folder, group, "full", ForgettingProbe, options, max_length=6
    )
    assert max(run.retention.lengths) == 6
    tokenizer = AutoTokenizer.from_pretrained(text_folder / "model")
    ends = [int(run.retention.tokens(row)[-1]) for row in range(len(run.retention))]
    assert tokenizer.eos_token_id not in ends
    texts = run.retention.column("expected")
    assert found["retention_texts"] == len(set(texts) & set(GENERAL)) == len(texts) == 15
    assert found["retention_loss"] == pytest.approx(
        loss_of_texts(encoder, text_folder, texts, 6), rel=1e-5
    )


def test_a_look_at_the_base_changes_nothing(
    text_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without general text a method gets the model in evaluation mode, and every weight
    ends the same.

    Without text, or without answers, there are no figures.
    """
    weights: list[dict[str, torch.Tensor]] = []
    modes: list[bool] = []
    build = LoRA.build
    monkeypatch.setattr(
        LoRA, "build", lambda of, backbone: modes.append(backbone.training) or build(of, backbone)
    )
    for options in ({}, {"retention": f"path:{text_folder / 'general.txt'}"}):
        trainer, probe, run = run_of(
            text_folder, group, "lora", ForgettingProbe, options, dropout=0.1
        )
        trainer.train()
        weights.append(
            {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        )
        assert options or (probe.stop(), probe.definitions()) == ({}, ())
        (answers := GenerationProbe()).start(run)
        answers.after_eval(trainer.evaluate(run.test, "test", trainer.steps))
        assert (answers.stop(), answers.definitions()) == ({}, ())
    assert modes == [False, False]
    for name, weight in weights[0].items():
        assert torch.equal(weights[1][name], weight), name


# Merging


def test_a_merged_model_is_pefts_own(text_folder: Path, group: Group) -> None:
    """Test loss of `merge_and_unload` by transformers; score and answers as before, to rounding."""
    found, encoder, run, before = measured(text_folder, group, "lora", MergingProbe, ANSWERS)
    merged = encoder.merge_and_unload()
    assert found["merged_test_loss"] == pytest.approx(loss_of_test_rows(merged, run), rel=1e-5)
    assert found["merged_test_loss"] == pytest.approx(before.metrics["loss"], rel=1e-4)
    assert found["merged_test_score"] == before.metrics["score"]
    assert found["merged_answers_changed"] == 0
    assert found["merged_evaluation_seconds"] > 0
    assert 0 < found["merged_logit_difference"] < 1e-4
    assert len(found) == 5


def test_a_merge_that_changes_a_model_is_seen(
    text_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights left out of the merge show in the loss, in the logits, and in answers."""
    trainer, probe, run = run_of(text_folder, group, "lora", MergingProbe, ANSWERS)
    trainer.train()
    before = trainer.evaluate(run.test, "test", trainer.steps)
    monkeypatch.setattr(type(run.method), "merge", lambda method, encoder: encoder.unload())
    found = probe.stop()
    assert abs(found["merged_test_loss"] - before.metrics["loss"]) > 0.01
    assert found["merged_logit_difference"] > 0.01
    assert found["merged_answers_changed"] > 0


@pytest.mark.parametrize("method", ["none", "adapter"])
def test_what_is_not_merged_has_no_figures(method: str, text_folder: Path, group: Group) -> None:
    """The base model, and methods that can't be folded into the weights."""
    assert measured(text_folder, group, method, MergingProbe, {})[0] == {}


@pytest.mark.parametrize(("options", "count"), [({}, 3), ({"scorer": "choice"}, 5)])
def test_merging_defines_what_it_finds(
    options: dict[str, Any], count: int, text_folder: Path, group: Group
) -> None:
    """Loss, logits and time; score and answers besides where choices are compared."""
    row = '{{"prompt": "w{0} w{0}", "completion": " w{1}", "choices": [" w0", " w1", " w2"]}}\n'
    (text_folder / "choices.jsonl").write_text("".join(row.format(i, i % 3) for i in range(100)))
    rows = {"name": "text_files", "options": {"train": f"path:{text_folder / 'choices.jsonl'}"}}
    trainer, probe, run = run_of(text_folder, group, "lora", MergingProbe, options, dataset=rows)
    trainer.evaluate(run.test, "test", 0)
    found = probe.stop()
    assert set(found) == {metric.name for metric in probe.definitions()}
    assert len(found) == count


# Conversion to LoRA


def converted(
    folder: Path, group: Group, method: dict[str, Any], task: dict[str, Any] = ANSWERS
) -> tuple[dict[str, Any], Any, Run, dict[str, float]]:
    """Train one of PEFT's types; return what the probe found, the encoder, and the scores on the
    test rows before.
    """
    found, encoder, run, before = measured(folder, group, method, ConversionProbe, task)
    weights = run.model.encoder.state_dict()
    assert weights.keys() == encoder.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
    return found, encoder, run, dict(before.metrics)


@converts
def test_the_loss_as_lora_is_that_of_pefts_checkpoint(
    text_folder: Path, group: Group, tmp_path: Path
) -> None:
    """Its `save_as_lora`, loaded as any LoRA on the base model, has the loss that the probe
    found.
    """
    found, encoder, run, before = converted(
        text_folder, group, {"type": "LOHA", "r": 4, "converted_rank": 2}
    )
    peft.save_as_lora(tmp_path, encoder, rank=2)
    base = AutoModelForCausalLM.from_pretrained(text_folder / "model")
    loss = loss_of_test_rows(peft.PeftModel.from_pretrained(base, tmp_path).eval(), run)
    assert found["converted_test_loss"] == pytest.approx(loss, rel=1e-5)
    assert found["converted_rank"] == 2
    assert found["converted_score_difference"] == found["converted_test_score"] - before["score"]
    assert abs(found["converted_test_loss"] - before["loss"]) > 1e-6, "two of its ranks are lost"


@converts
def test_a_conversion_is_of_the_model_as_it_is_evaluated(
    text_folder: Path, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout in what is decomposed; then the model is as it was."""
    original, modes = peft.convert_to_lora, []

    def noted(encoder: Any, rank: int) -> Any:
        modes.append({part.training for part in encoder.modules()})
        return original(encoder, rank)

    monkeypatch.setattr(peft, "convert_to_lora", noted)
    options = {"type": "LOHA", "r": 4, "converted_rank": 2, "module_dropout": 0.5}
    _, _, run, _ = converted(text_folder, group, options)
    assert modes == [{False}]
    assert {part.training for part in run.model.encoder.modules()} == {True}


@converts
def test_a_rank_that_holds_all_changes_nothing(text_folder: Path, group: Group) -> None:
    """The same answers, and the same loss to rounding; without answers the loss alone."""
    options = {"type": "VERA", "r": 4, "converted_rank": 4}
    found, _, _, before = converted(text_folder, group, options)
    assert found["converted_test_loss"] == pytest.approx(before["loss"], rel=1e-5)
    assert (found["converted_answers_changed"], found["converted_score_difference"]) == (0, 0)
    alone = {"converted_rank", "converted_test_loss", "converted_evaluation_seconds"}
    assert set(converted(text_folder, group, options, {})[0]) == alone


@converts
@pytest.mark.parametrize(
    "options",
    [
        {"type": "LOHA", "r": 4},
        {"type": "IA3", "converted_rank": 4},
        {"type": "PROMPT_TUNING", "converted_rank": 4},
        {"type": "LOHA", "r": 4, "converted_rank": 1000},
    ],
)
def test_no_conversion_unasked_or_impossible(
    options: dict[str, Any], text_folder: Path, group: Group
) -> None:
    """No rank, a type that adds nothing to weights, and a rank above that of the weights."""
    assert converted(text_folder, group, options)[0] == {}


def test_a_specification_without_it_is_written_as_before() -> None:
    """So that no recorded run has another name; PEFT isn't given it."""
    for given in (
        {"type": "LOHA"},
        {"type": "LOHA", "converted_rank": None},
        {"type": "LOHA", "converted_rank": 2},
    ):
        method = make_method(MethodSpec(name="x", method="peft", options=given, lr=1))
        assert "converted_rank" not in method.given
        assert ("converted_rank" in method.options.model_dump()) == bool(
            given.get("converted_rank")
        )


# Generation


def test_tokens_a_second_are_the_test_answers_tokens_over_their_time(
    text_folder: Path, group: Group
) -> None:
    """And the time to a first token is that of single prompts, as many as asked for."""
    found, _, _, evaluation = measured(text_folder, group, "lora", GenerationProbe, ANSWERS)
    tokens = evaluation.predictions.texts.tokens.sum()
    assert found["generated_tokens_per_second"] == tokens / evaluation.generation_seconds
    assert 0 < found["first_token_ms_p50"] < 1000


def test_answers_that_are_read_anew_are_said_to_be(text_folder: Path, group: Group) -> None:
    """In the record of a run whose cache was found wrong, and in no other."""
    for caches in (True, False):
        _, probe, run = run_of(text_folder, group, "lora", GenerationProbe, ANSWERS)
        run.model.caches = caches
        defined, found = {metric.name for metric in probe.definitions()}, probe.stop()
        assert ("answers_read_anew" in defined) == ("answers_read_anew" in found) == (not caches)
        assert found.get("answers_read_anew", 1.0) == 1.0
