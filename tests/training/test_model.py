"""The model of a run: what is loaded, in which types, what is put on it, and what is tried
before a training.
"""

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import support_table
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GPT2Config,
    GPT2Model,
)

from helpers import language_models, tiny
from helpers.classifiers import build, settings
from helpers.loops import Recorder
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.model import TaskModel, pool
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training import assembly, trial
from hpml_bench.training import model as model_module
from hpml_bench.training.assembly import assemble
from hpml_bench.training.model import load_backbone
from hpml_bench.training.trainer import make_trainer
from hpml_bench.training.trial import unused_parameters

HIDDEN = torch.arange(2 * 3 * 2).view(2, 3, 2).float()
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("last", [[4, 5], [8, 9]]), ("first", [[0, 1], [6, 7]]), ("mean", [[2, 3], [7, 8]])],
)
def test_pool_reads_real_tokens_only(pooling, expected):
    """Worked out by hand: padding is never pooled."""
    assert pool(HIDDEN, MASK, pooling).tolist() == expected


class TwoVirtualTokens(nn.Module):
    """Puts two states of 99 before the given ids as states."""

    def forward(self, input_ids, attention_mask):
        real = input_ids.unsqueeze(-1).float()
        self.last_hidden_state = torch.cat([torch.full((len(real), 2, 1), 99.0), real], 1)
        return self


def test_pooling_skips_virtual_tokens():
    """The last real token is found behind the method's virtual ones."""
    model = TaskModel(
        TwoVirtualTokens(), nn.Linear(1, 1), partial(pool, pooling="last"), virtual_tokens=2
    )
    nn.init.ones_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    assert model(torch.tensor([[5, 6, 0]]), torch.tensor([[1, 1, 0]])).tolist() == [[6.0]]


def test_logits_are_float32_under_autocast(backbone_folders):
    """Under bf16 autocast the backbone computes in bf16, and the head in float32."""
    ids, mask, _ = support_table.batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert build(backbone_folders["GPT-2"], "head")(ids, mask).dtype == torch.float32


def test_head_and_method_start_from_the_seed_alone(backbone_folders):
    """Random numbers drawn elsewhere move nothing, building moves no generator, and another seed
    moves both.
    """
    torch.manual_seed(1)
    first, then = build(backbone_folders["BERT"], "lora"), torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == then
    second, other = (
        build(backbone_folders["BERT"], "lora"),
        build(backbone_folders["BERT"], "lora", seed=1),
    )
    for name, weight in first.named_parameters():
        assert torch.equal(weight, second.get_parameter(name)), name
    changed = [n for n, p in other.named_parameters() if not torch.equal(p, first.get_parameter(n))]
    assert "head.weight" in changed
    assert any("lora_A" in name for name in changed)


def test_backbone_has_the_dropout_asked_for_no_pooler_and_no_cache(backbone_folders):
    """Dropout is the setting's, or the configuration's; BERT has no pooler, which would get no
    gradient.
    """
    for asked, expected in ({"dropout": 0.25}, 0.25), ({}, 0.1):
        modules = load_backbone(backbone_folders["BERT"], settings(**asked)).modules()
        assert {module.p for module in modules if isinstance(module, nn.Dropout)} == {expected}
    assert load_backbone(backbone_folders["BERT"], settings()).pooler is None
    ids, mask, _ = support_table.batch()
    output = load_backbone(backbone_folders["GPT-2"], settings())(
        input_ids=ids, attention_mask=mask
    )
    assert output.past_key_values is None
    assert output.last_hidden_state.dtype == torch.float32


def test_weights_that_are_missing_or_pickled_are_refused(backbone_folders, tmp_path):
    """They would be drawn at random in silence, or run code; the user hears of it instead."""
    folder = shutil.copytree(backbone_folders["GPT-2"], tmp_path / "gpt2")
    weights = load_file(folder / "model.safetensors")
    del weights["h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights.*h\.1\.mlp\.c_fc\.weight"):
        load_backbone(folder, settings())
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_backbone(folder, settings())


def test_what_is_no_backbone_is_refused(tmp_path):
    """An empty folder, an encoder-decoder and a width that heads do not divide give one sentence
    each.
    """
    with pytest.raises(UserError, match="no model that transformers knows"):
        load_backbone(tmp_path, settings())
    shape = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
    AutoModel.from_config(AutoConfig.for_model("t5", **shape)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="encoder-decoder"):
        load_backbone(tmp_path, settings())
    odd = {"model_type": "llama", "hidden_size": 33, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(odd), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"hidden size \(33\) is not a multiple of the number of attention heads"
    ):
        load_backbone(tmp_path, settings())


def test_texts_longer_than_the_positions_are_refused(backbone_folders):
    """64 positions: 65 tokens are the user's mistake, 64 with a prompt before them are the
    method's.
    """
    with pytest.raises(UserError, match="max_length 65"):
        build(backbone_folders["GPT-2"], "head", max_length=65)
    with pytest.raises(Unsupported, match="virtual tokens"):
        build(backbone_folders["GPT-2"], "prompt_tuning", max_length=64)
    build(backbone_folders["GPT-2"], "head", max_length=64)


def test_unused_parameters_are_named_and_nothing_else_changes(backbone_folders):
    """A parameter that the output doesn't depend on is found; gradients and random numbers are
    as before.
    """
    for vocabulary in (5, 9):  # of letters alone, as of a gene
        assert (
            unused_parameters(
                GPT2Model(GPT2Config(vocab_size=vocabulary, n_embd=8, n_head=2, n_layer=1))
            )
            == []
        )
    model = build(backbone_folders["GPT-2"], "full")
    assert unused_parameters(model) == []
    model.encoder.spare = nn.Parameter(torch.ones(3))
    torch.manual_seed(0)
    assert unused_parameters(model) == ["encoder.spare"]
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == drawn
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        *((kind, "none", {}) for kind in language_models.KINDS),
        ("GPT-2", "prompt_tuning", {"tokens": 5}),
        ("Llama", "peft", {"type": "PREFIX_TUNING", "num_virtual_tokens": 5}),
        ("GPT-2", "lora", {}),
        ("gptj", "none", {}),
        ("ctrl", "none", {}),
        ("gpt_oss", "lora", {}),
        ("mamba", "none", {}),
    ],
)
def test_positions_are_found_from_a_few_tokens(
    kind: str, method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """They are those of a pass over the whole text, and None where that fails."""
    if kind in language_models.FAMILIES:
        folder = language_models.save_family(kind, tmp_path / kind)
    elif kind in language_models.KINDS:
        folder = language_models.save_models(tmp_path)[kind]
    else:
        shape = {
            "n_embd": 32,
            "n_layer": 1,
            "n_head": 4,
            "n_positions": 96,
            "rotary_dim": 8,
            "dff": 32,
        }
        folder = tmp_path / kind
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=120, **shape))
        made.save_pretrained(folder)
    encoder: Any = language_models.trained(folder, method, options, steps=0)[0].encoder
    read: list[int] = []
    encoder.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(args[0].shape[1])
    )
    for length in (1, 40, 91, 96, 97):
        ids = torch.ones(1, length, dtype=torch.long)
        try:
            expected = encoder(input_ids=ids, attention_mask=ids)[0].shape[1]
        except (IndexError, RuntimeError):
            expected = None
        read.clear()
        assert trial.positions(encoder, length) == expected
        assert set(read) <= {trial.SHORT}


def test_a_model_that_reads_both_ways_is_seen(model_folders: dict[str, Path]) -> None:
    """By its logits, whatever its class is."""
    model: Any = AutoModelForCausalLM.from_pretrained(model_folders["Llama"])
    for causal in (True, False):
        for layer in model.model.layers:
            layer.self_attn.is_causal = causal
        assert trial.is_causal(model) is causal


# Loading of files of bfloat16: linear layers stay as they are, and a run is the same to the bit


ENDS = {"bos_token_id": None, "eos_token_id": tiny.VOCABULARY - 1, "pad_token_id": 0}
SHAPE = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
GROUPED = SHAPE | ENDS | {"num_key_value_heads": 2}
GEMMA = GROUPED | {"head_dim": 12, "sliding_window": 6}
IMAGES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 28,
    "patch_size": 14,
}
TOKENS = {"boi_token_index": 197, "eoi_token_index": 198, "image_token_index": 196}
MODELS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "llama": (AutoModelForCausalLM, "llama", GROUPED),
    "tied llama": (AutoModelForCausalLM, "llama", GROUPED | {"tie_word_embeddings": True}),
    "gpt2": (AutoModelForCausalLM, "gpt2", SHAPE | ENDS | {"num_attention_heads": 2}),
    "gemma3": (AutoModelForCausalLM, "gemma3_text", GEMMA),
    "gemma3 with images": (
        AutoModelForImageTextToText,
        "gemma3",
        TOKENS | {"text_config": GEMMA, "vision_config": IMAGES, "mm_tokens_per_image": 4},
    ),
    "bert": (AutoModel, "bert", SHAPE),
}
"""Classes and configurations; a scale of Gemma's embeddings, the root of the width, is no number
of bfloat16.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of bfloat16."""
    where = tmp_path_factory.mktemp("models")
    for name, (auto, kind, options) in MODELS.items():
        for random in ("config.json", "model.safetensors"):  # of the model whose tokenizer is taken
            (tiny.model(where / name) / random).unlink()
        torch.manual_seed(0)
        auto.from_config(AutoConfig.for_model(kind, **options)).to(torch.bfloat16).save_pretrained(
            where / name
        )
    return where


def a_run(
    folder: Path, model: str, method: str, options: dict[str, Any], **changes: Any
) -> tuple[RunSpec, Prepared]:
    task = "sequence_classification" if model == "bert" else "causal_lm"
    kind = registry.plugin("methods", method)
    chosen = MethodSpec(
        name=method, method=method, lr=1e-2, options=kind.Options(**options).model_dump()
    )
    values = {"precision": "bf16", "world_size": 1, "steps": 4, "dropout": 0.0} | changes
    spec = RunSpec(
        suite="s",
        settings=tiny.task_settings(folder, task, rows=64, **values),
        method=chosen,
        seed=0,
    )
    return spec, prepare(spec.settings).model_copy(update={"backbone": str(folder / model)})


def trained(spec: RunSpec, prepared: Prepared, group: Group) -> list[Any]:
    """Return the losses of steps, their gradient norms, and the losses and answers of rows."""
    kept, run = Recorder(), assemble(spec, prepared, group)
    trainer = make_trainer(run, [kept], lambda _: None)
    trainer.train()
    trainer.evaluate(run.test, "test", run.steps)
    rows = [evaluation.predictions for evaluation in kept.evaluations]
    answers = [of.texts and of.texts.answer for of in rows]
    return [
        kept.values("loss"),
        kept.values("grad_norm"),
        *(of.loss.tolist() for of in rows),
        answers,
    ]


@pytest.mark.parametrize(
    ("model", "method", "options"),
    [
        ("llama", "lora", {}),
        ("llama", "full", {}),
        ("llama", "adapter", {"size": 4}),
        ("llama", "prompt_tuning", {"tokens": 3}),
        ("llama", "peft", {"type": "VERA", "r": 8}),
        ("llama", "peft", {"type": "IA3"}),
        ("llama", "peft", {"type": "PREFIX_TUNING", "num_virtual_tokens": 3}),
        ("llama", "peft", {"type": "LORA", "modules_to_save": ["lm_head"]}),
        ("tied llama", "lora", {}),
        ("gpt2", "full", {}),
        ("gemma3", "lora", {}),
        ("gemma3 with images", "lora", {}),
        ("bert", "head", {}),
        ("bert", "lora", {}),
    ],
)
def test_a_file_of_bf16_gives_the_same_run_as_in_float32(
    model: str,
    method: str,
    options: dict[str, Any],
    folder: Path,
    group: Group,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losses, gradient norms, rows' losses and answers are equal to the bit; no linear weight is
    ever float32.
    """
    spec, prepared = a_run(folder, model, method, options)
    loaded: list[tuple[set[torch.dtype], set[torch.dtype]]] = []
    load = model_module.load_backbone

    def watched(*arguments: Any) -> Any:
        found = load(*arguments)
        linear = {id(weight) for weight in model_module.linear_weights(found)}
        by_kind = [
            {w.dtype for w in found.parameters() if (id(w) in linear) == kind}
            for kind in (True, False)
        ]
        loaded.append(
            (by_kind[0], by_kind[1] | {b.dtype for b in found.buffers() if b.is_floating_point()})
        )
        return found

    monkeypatch.setattr(model_module, "load_backbone", watched)
    halved = trained(spec, prepared, group)
    monkeypatch.setattr(assembly, "linear_as_bf16", lambda *_: False)
    whole = trained(spec, prepared, group)
    assert halved == whole
    assert all(map(math.isfinite, (*halved[0], *halved[1], *halved[-2])))
    assert loaded == [({torch.bfloat16}, {torch.float32}), ({torch.float32}, {torch.float32})]


@pytest.mark.parametrize(
    ("options", "changes", "one_of_float32"),
    [
        *(({"type": kind}, {}, False) for kind in ("PISSA", "DORA", "EVA", "LOHA")),
        ({"type": "IA3"}, {"precision": "fp32"}, False),
        ({"type": "IA3"}, {"precision": "fp16"}, False),
        ({"type": "IA3"}, {"weights": "bfloat16"}, False),
        ({"type": "IA3"}, {}, True),
    ],
)
def test_what_bf16_would_round_is_loaded_as_the_settings_say(
    options: dict[str, Any],
    changes: dict[str, Any],
    one_of_float32: bool,
    folder: Path,
    tmp_path: Path,
) -> None:
    """Methods that start from weights, other precisions, a type that is asked for, files with a
    tensor of float32.
    """
    spec, prepared = a_run(folder, "llama", "peft", options, **changes)
    copy = shutil.copytree(prepared.backbone, tmp_path / "model")
    if one_of_float32:
        tensors = load_file(copy / "model.safetensors")
        name = next(name for name in tensors if name.endswith("norm.weight"))
        save_file(
            tensors | {name: tensors[name].float()}, copy / "model.safetensors", {"format": "pt"}
        )
    assert not model_module.linear_as_bf16(copy, spec.settings, make_method(spec.method))
    assert model_module.linear_as_bf16(folder / "llama", *plain(folder))


def plain(folder: Path) -> tuple[Settings, Method]:
    spec, _ = a_run(folder, "llama", "lora", {})
    return spec.settings, make_method(spec.method)


def test_the_type_of_a_file_that_is_not_here_is_its_configurations(
    folder: Path, tmp_path: Path
) -> None:
    """As of a model of the hub of which config.json alone was fetched."""
    shutil.copy(folder / "llama" / "config.json", tmp_path)
    assert model_module.linear_as_bf16(tmp_path, *plain(folder))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert not model_module.linear_as_bf16(tmp_path, *plain(folder))
