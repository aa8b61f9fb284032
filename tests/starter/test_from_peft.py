"""`hpml-bench init --from-peft`: experiments of PEFT's method comparison as a suite, and why
some are left out.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import called
from hpml_bench.plugins.method import make_method
from hpml_bench.suite.suite import load_suite

DEFAULTS = {
    "model_id": "meta-llama/Llama-3.2-3B",
    "dtype": "bfloat16",
    "max_seq_length": 768,
    "batch_size": 4,
    "batch_size_eval": 51,
    "max_steps": 5000,
    "eval_steps": 250,
    "compile": False,
    "grad_norm_clip": 1.0,
    "optimizer_type": "AdamW",
    "optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0.1},
    "lr_scheduler": "cosine",
    "use_amp": False,
    "autocast_adapter_dtype": True,
    "query_template": "Question: {query} Think step by step.\nAnswer:",
}
LORA = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "bias": "none",
    "r": 32,
    "init_lora_weights": True,
    "lora_alpha": 64,
    "peft_type": "LORA",
    "target_modules": None,
    "task_type": "CAUSAL_LM",
    "an_option_of_later": None,
}
DECAY = {"weight_decay": 0.1}
Written = tuple[dict[str, Any] | None, dict[str, Any] | None]
SAID: dict[str, Written] = {
    "full-finetuning/llama-3.2-3B-lr_0.00001": (None, {"optimizer_kwargs": {"lr": 1e-5}}),
    "lora/llama-3.2-3B-rank32": (LORA, None),
    "lora/llama-3.2-3B-plus": (
        LORA,
        {
            "optimizer_type": "lora+",
            "optimizer_kwargs": {"lr": 2e-4, "loraplus_lr_ratio": 8.0, **DECAY},
        },
    ),
    "ptuning/llama-3.2-3B-default": (
        {
            "peft_type": "P_TUNING",
            "num_virtual_tokens": 20,
            "token_dim": 3072,
            "encoder_hidden_size": 3072,
        },
        {"eval_steps": 500, "optimizer_kwargs": {"lr": 1e-3, **DECAY}},
    ),
}
LEFT_OUT: dict[str, tuple[Written, str]] = {
    "finegates/default": (({"peft_type": "FINEGATES"}, None), "PEFT has no type FINEGATES"),
    "lily/rank8": (({"peft_type": "LILY"}, None), "its router averages over all tokens of a batch"),
    "lora/astra": (
        ({**LORA, "astra": {"a": 1}}, None),
        "LORA has no option astra in the PEFT that is installed",
    ),
    "lora/lorafa": ((LORA, {"optimizer_type": "lora-fa"}), "there is no optimizer lora-fa here"),
    "lora/betas": (
        (LORA, {"optimizer_kwargs": {"lr": 1e-4, "betas": [0.9, 0.9]}}),
        "betas: arguments of its optimizer",
    ),
    "lora/short": (
        (LORA, {"max_steps": 1000}),
        "max_steps is 1000, not 5000, which would be a setting of all methods",
    ),
    "prefix/start": (
        (LORA, {"init_kv_cache_prefix": "You are"}),
        "init_kv_cache_prefix is You are, not None",
    ),
    "lora/none": ((None, {}), "adapter_config.json is missing"),
}


def write(
    folder: Path, experiments: dict[str, Written], defaults: dict[str, Any] | None = None
) -> Path:
    for name, (adapter, training) in experiments.items():
        place = folder / "experiments" / name
        place.mkdir(parents=True)
        for file, content in (("adapter_config.json", adapter), ("training_params.json", training)):
            if content is not None:
                (place / file).write_text(json.dumps(content))
    if defaults is not None:
        (folder / "default_training_params.json").write_text(json.dumps(defaults))
    return folder


def test_experiments_are_methods_and_the_others_are_listed(tmp_path: Path) -> None:
    """Rates, options and optimizers are theirs; what is left out is in the suite and on the
    terminal, with reasons.
    """
    folder = write(
        tmp_path, SAID | {name: written for name, (written, _) in LEFT_OUT.items()}, DEFAULTS
    )
    done = called("init", "--from-peft", folder, "--out", tmp_path / "theirs.yaml")
    text = (tmp_path / "theirs.yaml").read_text()
    for said in (text, done.stderr):
        assert "4 of 12 experiments are methods here" in said
        assert said.count("left out: ") == len(LEFT_OUT)
        assert all(f"left out: {name}: {why}" in said for name, (_, why) in LEFT_OUT.items())
        assert (
            "differs: full-finetuning/llama-3.2-3B-lr_0.00001: weight decay is 0.1 here, 0.01 there"
            in said
        )
        assert said.count("differs: ") == 1
    suite = load_suite(str(tmp_path / "theirs.yaml"))
    assert suite.settings == load_suite("metamath").settings
    found = {name: suite.method(name) for name in suite.methods}
    assert {name: (spec.method, spec.lr) for name, spec in found.items()} == {
        "full-finetuning-lr_0.00001": ("full", 1e-5),
        "lora-rank32": ("peft", 1e-4),
        "lora-plus": ("peft", 2e-4),
        "ptuning-default": ("peft", 1e-3),
    }
    assert found["lora-rank32"].options == {
        "type": "LORA",
        "r": 32,
        "lora_alpha": 64,
        "target_modules": None,
    }
    written = {"type": "P_TUNING", "num_virtual_tokens": 20, "encoder_hidden_size": 3072}
    assert found["ptuning-default"].options == written
    assert (found["lora-plus"].optimizer.name, found["lora-plus"].optimizer.options["ratio"]) == (
        "lora_plus",
        8.0,
    )


def test_targets_that_they_leave_open_are_those_of_pefts_table(llama: Path) -> None:
    """As in PEFT, LoRA without target modules changes queries and values alone; here it would be
    all linear layers.
    """
    from transformers import AutoModel

    from hpml_bench.suite.settings import MethodSpec

    options = {"type": "LORA", "r": 2, "target_modules": None}
    method = make_method(MethodSpec(name="x", method="peft", options=options, lr=1))
    model = method.build(AutoModel.from_pretrained(llama))
    names = {
        name.split(".lora_A")[0].rsplit(".", 1)[-1]
        for name, _ in model.named_parameters()
        if ".lora_A" in name
    }
    assert names == {"q_proj", "v_proj"}


def test_defaults_that_differ_are_told(tmp_path: Path) -> None:
    """Settings are the packaged suite's; a changed file of defaults is named, and what an
    experiment repeats of it not.

    Nor a weight decay as that file has it, which is compared with the suite's.
    """
    changed = {
        "model_id": "Qwen/Qwen3-0.6B",
        "max_steps": 100,
        "dtype": "float32",
        "query_template": "Q:\n{query}\nA:",
    }
    one: dict[str, Written] = {"lora/qwen3-0.6B-rank32": (LORA, {"max_steps": 100})}
    folder = write(tmp_path, one, DEFAULTS | changed) / "experiments"
    done = called("init", "--from-peft", folder, "--out", tmp_path / "theirs.yaml")
    for said in (
        "model_id): meta-llama/Llama-3.2-3B here, Qwen/Qwen3-0.6B there",
        "max_steps): 5000 here, 100 there",
        "query_template): Question: {query} Think step by step. Answer: here, Q: {query} A: there",
    ):
        assert f"differs: all ({said}" in done.stderr
    assert done.stderr.count("differs: ") == 4
    suite = load_suite(str(tmp_path / "theirs.yaml"))
    assert suite.settings == load_suite("metamath").settings
    assert suite.method("lora-rank32").lr == 1e-4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from-peft", "{}"), "no experiments here"),
        (("--from-peft", "{}", "--model", "m"), "give --out alone"),
        (("--from-peft", "{}", "--set", "steps=3"), "give --out alone"),
        (("--data", "rows.csv"), "Missing option '--model'"),
        (("--model", "m"), "Missing option '--data'"),
    ],
)
def test_what_is_missing_or_too_much_is_said(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """One sentence, status 2."""
    done = called("init", *(word.format(tmp_path) for word in words), status=2)
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_folder_of_which_nothing_can_be_said_is_refused(tmp_path: Path) -> None:
    """With the first reason."""
    done = called("init", "--from-peft", write(tmp_path, {"lora/none": (None, {})}), status=2)
    assert "no experiment can be said; of the first: adapter_config.json is missing" in done.output
