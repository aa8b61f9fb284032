"""Models and rows small enough for tests, made on the spot."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from helpers.commands import called
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.dataset import Target
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_records
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import Digests, MethodSpec, RunSpec, Settings
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from hpml_bench.plugins.group import Group

VOCABULARY = 200
DIGESTS = Digests(weights="w", tokenizer="t", data="d")
NOTHING = Prepared(backbone="b", data="d", label_names=("x", "y"), digests=DIGESTS, pad_id=0)
"""Stands for what was prepared where no rank reads it."""


def gpt2(folder: Path) -> Path:
    import torch
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    GPT2Model(
        GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    ).save_pretrained(folder)
    return folder


def prepared(folder: Path, rows: int = 96, classes: int = 3, seed: int = 0) -> Prepared:
    """Save a backbone and tokenised rows whose first token tells the class."""
    import pyarrow as pa

    from hpml_bench.plugins.rows import write_rows

    generator = np.random.default_rng(seed)
    for split in ("train", "validation", "test"):
        labels = generator.integers(0, classes, rows)
        lengths = generator.integers(3, 12, rows)
        pairs = zip(labels, lengths, strict=True)
        ids = [
            [int(label) + 1, *generator.integers(10, VOCABULARY, length).tolist()]
            for label, length in pairs
        ]
        write_rows(
            folder / "data" / split, [{"input_ids": ids, "label": labels.tolist()}], pa.int64()
        )
    places = {"backbone": str(gpt2(folder / "backbone")), "data": str(folder / "data")}
    return NOTHING.model_copy(
        update=places | {"label_names": tuple(f"class {index}" for index in range(classes))}
    )


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "backbone": "path:tiny",
        "dataset": "text_files",
        "steps": 6,
        "global_batch": 12,
        "eval_batch": 16,
        "log_every": 2,
        "warmup_steps": 1,
        "latency_samples": 3,
        "device": "cpu",
        "world_size": 2,
        "threads": 1,
        "precision": "fp32",
        "dropout": 0.0,
        "max_length": 32,
    }
    return Settings.model_validate(values | changes)


ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""Environment of a run's only rank."""


@contextmanager
def alone() -> Iterator[Group]:
    from hpml_bench.training.distributed import process_group

    os.environ.update(ALONE)
    with process_group(settings(world_size=1)) as found:
        yield found


def spec(method: str = "lora", seed: int = 0, lr: float = 1e-2, **changes: Any) -> RunSpec:
    chosen = MethodSpec(name=method, method=method, lr=lr)
    return RunSpec(suite="tiny", settings=settings(**changes), method=chosen, seed=seed)


COLOURS = ("blue", "green", "red")


def model(folder: Path) -> Path:
    """Save a random GPT-2 with a tokenizer of the words w0, w1, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(VOCABULARY - 2)}
    words |= {"[UNK]": VOCABULARY - 2, "<end>": VOCABULARY - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="<end>")
    fast.save_pretrained(gpt2(folder))
    return folder


TAGS = ("O", "B-A", "I-A", "B-B", "I-B")


def row_to_learn(target: Target, generator: np.random.Generator) -> dict[str, Any]:
    """Return a row of three to ten words: the first tells its class or number, and every word
    its own tag.
    """
    words = [f"w{word}" for word in generator.integers(10, 150, generator.integers(3, 11))]
    kind = int(generator.integers(0, 3))
    text = f"w{kind} {' '.join(words)}"
    if target == "class":
        return {"text": text, "label": COLOURS[kind]}
    if target == "number":
        return {"text": text, "label": 10 + 1.5 * kind + float(generator.normal(0, 0.1))}
    if target == "answer":
        return {"prompt": text, "completion": f" w{5 + kind}"}
    return {"words": words, "tags": [TAGS[int(word[1:]) % len(TAGS)] for word in words]}


def task_settings(folder: Path, task: str, /, rows: int = 160, **changes: Any) -> Settings:
    """Write a model with its tokenizer and rows that a task can learn, and return settings of a
    run of seconds.
    """
    target = registry.plugin("tasks", task).target
    if not (folder / "model").exists():
        model(folder / "model")
    generator = np.random.default_rng(0)
    lines = [json.dumps(row_to_learn(target, generator)) for _ in range(rows)]
    (folder / f"{target}.jsonl").write_text("\n".join(lines) + "\n")
    options: dict[str, Any] = {"scorer": "exact", "max_new_tokens": 4} if target == "answer" else {}
    values = {
        "backbone": f"path:{folder / 'model'}",
        "task": {"name": task, "options": options},
        "dataset": {
            "name": "text_files",
            "options": {"train": f"path:{folder / f'{target}.jsonl'}"},
        },
        "validation_samples": 16,
        "test_samples": 25,
    }
    return settings(**values | changes)


def local_suite(
    folder: Path, rows: int = 160, more: Mapping[str, Any] | None = None, **settings: Any
) -> Path:
    """Write a model, a csv of rows whose first word tells the colour, and a suite of them, with
    `more` keys.
    """
    import yaml

    model(folder / "model")
    generator = np.random.default_rng(0)
    lines = [
        f"{COLOURS[label]},w{label} "
        + " ".join(f"w{word}" for word in generator.integers(10, 150, 6))
        for label in generator.integers(0, 3, rows)
    ]
    (folder / "rows.csv").write_text("\n".join(["label,text", *lines]) + "\n")
    values = {
        "backbone": "path:model",
        "dataset": {
            "name": "text_files",
            "options": {"train": "path:rows.csv", "text": "text", "label": "label"},
        },
        "steps": 4,
        "global_batch": 8,
        "eval_batch": 32,
        "validation_samples": 16,
        "test_samples": 24,
        "max_length": 16,
        "log_every": 2,
        "warmup_steps": 1,
        "latency_samples": 2,
        "device": "cpu",
        "world_size": 2,
        "threads": 1,
        "precision": "fp32",
    }
    suite = {
        "description": "Colours, for tests.",
        "seeds": 2,
        "methods": {"lora": {"lr": 1e-2}, "head": {}},
    }
    suite |= {"settings": values | settings, **(more or {})}
    (folder / "colours.yaml").write_text(yaml.safe_dump(suite))
    return folder / "colours.yaml"


def run_and_save(folder: Path, method: str, settings: Settings) -> RunRecord:
    """Run a method by the command on a suite of these settings, FOLDER/words.yaml; save it as
    FOLDER/saved.
    """
    import yaml

    values = settings.model_dump(mode="json", exclude_defaults=True)
    suite = {
        "description": "Words.",
        "seeds": 1,
        "settings": values,
        "methods": {method: {"lr": 1e-2}},
    }
    (folder / "words.yaml").write_text(yaml.safe_dump(suite))
    places = (folder / "words.yaml", "--save", folder / "saved", "--out", folder / "out")
    called("run", method, *places, "--wandb", "off")
    (record,) = load_records(folder / "out" / "words").records
    return record


def records(out: Path) -> dict[tuple[str, int], RunRecord]:
    return {
        (record.spec.method.name, record.spec.seed): record
        for record in load_records(out / "colours").records
    }


def scores(found: dict[tuple[str, int], RunRecord]) -> dict[tuple[str, int], Any]:
    """Return what must be equal to the bit: every test metric, and the file of predictions."""
    return {
        key: (
            record.files["predictions.parquet"],
            {n: v for n, v in record.metrics.items() if n.startswith("test_")},
        )
        for key, record in found.items()
    }


NO_LIMITS = Limits(stall=0)


def request(
    spec: RunSpec, prepared: Prepared, folder: Path, limits: Limits = NO_LIMITS, **more: Any
) -> RunRequest:
    return RunRequest(spec=spec, prepared=prepared, folder=folder, limits=limits, **more)


def execute(request: RunRequest) -> RunRecord:
    from hpml_bench.launch import launcher
    from hpml_bench.training import worker

    RunFolder(request.folder).begin()
    with mock.patch.dict(os.environ, ALONE):
        outcome = worker.execute(request)
    return RunFolder(request.folder).commit(launcher.record_of(request, outcome, "", 0.0))


def run(
    spec: RunSpec,
    prepared: Prepared,
    folder: Path,
    limits: Limits = NO_LIMITS,
    run_ranks: Any = None,
    **more: Any,
) -> RunRecord:
    """Do a run by the launcher, on this machine unless something else runs its ranks."""
    from hpml_bench.launch import launcher

    return launcher.run(request(spec, prepared, folder, limits, **more), run_ranks or launcher.here)
