"""MetaMathQA and GSM8K as PEFT's method comparison takes them, from folders laid out as the
hub's.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from helpers import language_models
from hpml_bench.builtin.methods.peft import config_class
from hpml_bench.builtin.sections.published import load
from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.dataset import make_loader
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.tokenizer import load_tokenizer
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError
from hpml_bench.training.model import load_backbone

QUESTIONS = 40


def llama(folder: Path) -> Path:
    """Save a tiny random Llama with a byte-level tokenizer that begins texts with a token of its
    own.
    """
    from tokenizers import processors
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(
        language_models.save_letters(folder), bos_token="<|stop|>"
    )
    begin = ("<|stop|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<|stop|> $A", special_tokens=[begin]
    )
    tokenizer.save_pretrained(folder)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def local_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that put local folders in the hub's place, and a CPU in the GPU's."""
    folder = tmp_path_factory.mktemp("hub")
    rows = [
        {"query": f"What is {n} + 1?", "response": f"The answer is: {n + 1}", "type": "x"}
        for n in range(60)
    ]
    rows.insert(3, {"query": "long " * 200, "response": "x" * 301, "type": "x"})
    (folder / "metamath").mkdir()
    (folder / "metamath" / "MetaMathQA-395K.json").write_text(json.dumps(rows))
    (folder / "gsm8k" / "main").mkdir(parents=True)
    for split, count in (("train", QUESTIONS), ("test", 7)):
        asked = {
            "question": [f"{split} {n}?" for n in range(count)],
            "answer": [f"So\n#### {n}" for n in range(count)],
        }
        Dataset.from_dict(asked).to_parquet(
            folder / "gsm8k" / "main" / f"{split}-00000-of-00001.parquet"
        )
    general = [" = A title = \n", "", " A paragraph of text . \n", " Another one . \n"] * 5
    Dataset.from_dict({"text": general}).to_parquet(folder / "general.parquet")
    return {
        "task.options.retention": f"path:{folder / 'general.parquet'}",
        "backbone": f"path:{llama(folder / 'llama')}",
        "dataset.options.train": f"path:{folder / 'metamath'}",
        "dataset.options.test": f"path:{folder / 'gsm8k'}",
        "dataset.options.first": 50,
        "train_samples": 50,
        "validation_samples": 5,
        "device": "cpu",
        "steps": 3,
        "global_batch": 4,
        "eval_batch": 4,
        "eval_every": 3,
        "task.options.max_new_tokens": 6,
        "threads": 1,
        "max_length": 256,
        "latency_samples": 2,
    }


def test_rows_are_theirs(local_sources: dict[str, Any]) -> None:
    """The first rows that are short enough; validation rows drawn from GSM8K's training rows
    with numpy's seed 0.
    """
    settings = load_suite("metamath", settings=local_sources).settings
    loaded = make_loader(settings).load(settings, "answer")
    assert len(loaded.train) == 50
    assert loaded.train[0]["contents"] == [
        "Question: What is 0 + 1? Think step by step.\nAnswer:",
        "The answer is: 1",
    ]
    assert loaded.train[3]["contents"][1] == "The answer is: 4", "the long row is left out"
    np.random.seed(0)
    order = np.arange(QUESTIONS)
    np.random.shuffle(order)
    asked = [contents[0] for contents in loaded.validation["contents"]]
    assert asked == [f"Question: train {n}? Think step by step.\nAnswer:" for n in order[:5]]
    assert len(loaded.test) == 7


def test_the_loss_is_on_question_and_answer(local_sources: dict[str, Any]) -> None:
    """Every token but the first, which begins the text, once; the end token too, and the prompt
    ends at Answer:.
    """
    settings = load_suite("metamath", settings=local_sources).settings
    prepared = prepare(settings)
    tokenizer = load_tokenizer(Path(prepared.backbone))
    rows = Rows(Path(prepared.data) / "test", prepared.pad_id)
    ids = rows.tokens(0).tolist()
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert rows.token_labels[0].tolist() == [-100, *ids[1:]]
    assert tokenizer.decode(ids[: rows.column("prompt")[0]]).endswith("\nAnswer:")


PUBLISHED = {(row.method, row.type): row for row in load("metamath").methods}
OF_THE_RUN = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "task_type",
}
"""Fields of PEFT's configurations that describe the model and the installed version."""


@pytest.mark.parametrize("method", ["lora", "adalora", "deft", "ln_tuning"])
def test_methods_beside_published_figures_are_configured_as_those(
    local_sources: dict[str, Any], method: str
) -> None:
    """The learning rate, the weight decay, and PEFT's whole configuration as the method makes it
    on a model.
    """
    suite = load_suite("metamath")
    spec = suite.runs([method], [0])[0].method
    published = PUBLISHED[spec.method, spec.options.get("type")]
    assert (spec.lr, suite.settings.weight_decay) == (published.lr, 0.1)
    backbone = load_backbone(
        Path(local_sources["backbone"].removeprefix("path:")), suite.settings, "language_model"
    )
    made = make_method(spec)
    model = made.build(backbone)
    made.before_train(model, (), suite.settings.steps)
    expected = config_class(published.type or "LORA")(**published.config)
    found, asked = (_comparable(config) for config in (model.active_peft_config, expected))
    assert published.config
    assert found == asked


def _comparable(config: Any) -> dict[str, Any]:
    fields = {key: value for key, value in config.to_dict().items() if key not in OF_THE_RUN}
    return {
        key: sorted(value) if isinstance(value, list | set) else value
        for key, value in fields.items()
    }


def test_all_methods_with_published_figures_are_compared_with_their_configurations() -> None:
    """A reference row that a method of the suite stands beside says how it was configured."""
    ours = {
        (spec.method.method, spec.method.options.get("type"))
        for spec in load_suite("metamath").runs()
    }
    beside = ours & set(PUBLISHED)
    assert {PUBLISHED[kind].title for kind in beside} == {
        row.title for row in PUBLISHED.values() if row.config
    }


def test_a_data_set_without_its_columns_is_refused(local_sources: dict[str, Any]) -> None:
    """In a sentence that names the column."""
    wrong = local_sources | {"dataset.options.train": local_sources["dataset.options.test"]}
    settings = load_suite("metamath", settings=wrong).settings
    with pytest.raises(UserError, match=r"there is no column 'query'|can't be loaded") as raised:
        make_loader(settings).load(settings, "answer")
    assert "\n" not in str(raised.value)
