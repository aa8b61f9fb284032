"""Language models: training against TRL's SFTTrainer, logits at learnt places, and generation
against `generate`.

SmolLM2-135M's shape with random weights, LoRA r=8 on all linear layers, batch 8, prompts of 20 to
80 tokens and completions of 10 to 60. TRL is needed (`pip install trl`). They take turns in random
order, each in a new process.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hpml_bench.plugins.group import settle
from hpml_bench.system.environment import cores
from speed import RANK, Process, Target, faster, ratio, shapes

VOCABULARY = 49_152
BATCH, ROWS = 8, 48
WARM, TIMED = ROWS // BATCH, ROWS // BATCH
"""Steps before the clock, and under it: an epoch each, since who groups rows by length begins
with the longest.
"""
NEW_TOKENS, EVAL_BATCH, PROMPTS = 16, 16, 48
ASKED = {
    "trl": ("TRL's SFTTrainer as it comes, completion only, fp32", 2.0),
    "trl_grouped": ("TRL's SFTTrainer, rows grouped by length, fp32", 1.5),
    "trl_grouped_bf16": ("TRL's SFTTrainer, rows grouped by length, bf16", 1.5),
}


def rows() -> tuple[list[list[int]], list[int]]:
    """Return token ids of rows, and the length of each one's prompt."""
    draw = np.random.default_rng(0)
    prompts = draw.integers(20, 81, ROWS)
    completions = draw.integers(10, 61, ROWS)
    ids = [
        draw.integers(10, VOCABULARY, a + b).tolist()
        for a, b in zip(prompts, completions, strict=True)
    ]
    return ids, prompts.tolist()


def save(folder: Path) -> None:
    """Save the model, its tokenizer and the rows as the preparation leaves them."""
    import pyarrow as pa
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from hpml_bench.data.sources import resolve_model
    from hpml_bench.plugins.rows import write_rows

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=1,
        eos_token_id=0,
        bos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    embedded = resolve_model("embedded:newswire-gpt2").folder_or_file
    AutoTokenizer.from_pretrained(embedded).save_pretrained(folder / "model")
    ids, prompts = rows()
    labels = [[-100] * prompt + row[prompt:] for row, prompt in zip(ids, prompts, strict=True)]
    columns: dict[str, list[Any]] = {"input_ids": ids, "label": labels, "prompt": prompts}
    for split in ("train", "validation", "test"):
        write_rows(folder / "rows" / split, [columns], pa.list_(pa.int32()), {"prompt": pa.int32()})


def ours(job: dict[str, Any], precision: str = "auto", everywhere: bool = False) -> dict[str, Any]:
    """Train by the harness; `everywhere` computes logits at all places, as scripts do, and takes
    those needed.
    """
    with _trainer(Path(job["folder"]), precision) as trainer:
        model = trainer.model

        def plain(input_ids: Any, attention_mask: Any, labels: Any, *_: Any) -> Any:
            logits = model.encoder(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits[:, :-1][labels[:, 1:] != -100]

        if everywhere:
            model.forward = plain
        began, samples = 0.0, 0
        for index, indices in enumerate(islice(trainer.order(), WARM + TIMED), start=1):
            if index == WARM + 1:
                began = time.perf_counter()
            trainer.step(index, indices)
            samples += len(indices) * (index > WARM)
        seconds = time.perf_counter() - began
        return {"samples": samples, "seconds": seconds, "precision": trainer.settings.precision}


def _trainer(folder: Path, precision: str = "fp32") -> AbstractContextManager[Any]:
    asked = {
        "dataset": "text_files",
        "task": "causal_lm",
        "steps": WARM + TIMED,
        "global_batch": BATCH,
        "eval_batch": EVAL_BATCH,
        "device": "cpu",
        "threads": cores(),
        "max_length": 160,
        "precision": shapes.faster_precision(folder / "model")
        if precision == "auto"
        else precision,
    }
    prepared = shapes.prepared(folder, "model").model_copy(update={"label_names": (), "pad_id": 1})
    return our_trainer(prepared, "lora", {"r": 8, "alpha": 16}, asked)


@contextmanager
def our_trainer(
    prepared: Any,
    method: str,
    options: dict[str, Any],
    asked: dict[str, Any],
    *,
    probes: bool = False,
) -> Iterator[Any]:
    """Yield what takes the harness's own steps on one rank, all probes on or none."""
    from hpml_bench.suite import registry
    from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
    from hpml_bench.training.assembly import assemble
    from hpml_bench.training.distributed import process_group
    from hpml_bench.training.trainer import Trainer

    os.environ.update(RANK)
    made = registry.plugin("methods", method).Options(**options).model_dump()
    settings = Settings.model_validate({"backbone": "path:", "world_size": 1, **asked})
    of = MethodSpec(name=method, method=method, options=made, lr=1e-4)
    spec = RunSpec(suite="speed", settings=settings, method=of, seed=0)
    with process_group(settings) as group, tempfile.TemporaryDirectory() as folder:
        assembly = assemble(spec, prepared, group)
        seen = replace(
            assembly, folder=Path(folder), began=time.monotonic(), test=assembly.train_rows
        )
        chosen = (
            [registry.plugin("probes", name)() for name in registry.names("probes")]
            if probes
            else []
        )
        for probe in chosen:
            probe.start(seen)
        trainer = Trainer(assembly, chosen)
        trainer.model.train()
        yield trainer


def clock(warm: int) -> Any:
    """Return a callback of the HF Trainer that notes when the steps after the first ones,
    untimed, begin and end.
    """
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = ended = 0.0

        def on_step_end(self, arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step in {warm, state.max_steps}:
                settle(arguments.device)
            if state.global_step == warm:
                self.began = time.perf_counter()
            self.ended = time.perf_counter()

    return Clock()


def trl(job: dict[str, Any], grouped: bool, bf16: bool) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    watch = clock(WARM)
    ids, prompts = rows()
    masks = [
        [0] * prompt + [1] * (len(row) - prompt) for row, prompt in zip(ids, prompts, strict=True)
    ]
    data = Dataset.from_dict({"input_ids": ids, "completion_mask": masks})
    folder = Path(job["folder"])
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    options = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out,
            per_device_train_batch_size=BATCH,
            max_steps=WARM + TIMED,
            learning_rate=1e-4,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=bf16,
            max_length=None,
            logging_steps=1000,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **options,
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=data,
            callbacks=[watch],
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear"
            ),
        )
        trainer.train()
    return {"samples": BATCH * TIMED, "seconds": watch.ended - watch.began}


def generation(job: dict[str, Any]) -> dict[str, Any]:
    """Answer prompts by the harness, and by transformers' generate on the same batches."""
    import torch

    from hpml_bench.plugins.decoding import Decoding, Generator
    from hpml_bench.training.generation import generate

    with _trainer(Path(job["folder"])) as trainer:
        model = trainer.model.eval()
        ids, prompts = rows()
        asked = [row[:prompt] for row, prompt in zip(ids[:PROMPTS], prompts, strict=False)]
        decoding = Generator(Decoding(NEW_TOKENS), (), lambda _: "", 1, EVAL_BATCH, 0)
        by_length = sorted(asked, key=len, reverse=True)
        batches = [
            by_length[start : start + EVAL_BATCH] for start in range(0, len(by_length), EVAL_BATCH)
        ]

        def harness() -> None:
            for batch in batches:
                generate(model, batch, decoding, torch.device("cpu"), list(range(len(batch))))

        def by_hand() -> None:
            for batch in batches:
                longest = max(map(len, batch))
                padded = torch.tensor([[1] * (longest - len(row)) + row for row in batch])
                mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
                with torch.no_grad():
                    model.encoder.generate(
                        input_ids=padded,
                        attention_mask=mask,
                        max_new_tokens=NEW_TOKENS,
                        do_sample=False,
                        eos_token_id=None,
                        use_cache=True,
                    )

        timed = {"ours": harness, "by_hand": by_hand}
        seconds: dict[str, list[float]] = {name: [] for name in timed}
        for turn in range(4):
            for name in random.Random(turn).sample(list(timed), len(timed)):  # noqa: S311
                began = time.perf_counter()
                timed[name]()
                if turn:  # the first turn warms up
                    seconds[name].append(time.perf_counter() - began)
        return {"turns": seconds}


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "ours_auto": ours,
    "ours_fp32": partial(ours, precision="fp32"),
    "all_logits": partial(ours, precision="fp32", everywhere=True),
    "trl": partial(trl, grouped=False, bf16=False),
    "trl_grouped": partial(trl, grouped=True, bf16=False),
    "trl_grouped_bf16": partial(trl, grouped=True, bf16=True),
    "generation": generation,
}


def measure(rounds: int) -> list[Target]:
    """Return ratios of samples/s, what logits at learnt places bring, and ratios of generation."""
    trained = ("ours_auto", "ours_fp32", "all_logits", *ASKED)

    def run(contender: str) -> dict[str, Any]:
        with Process(contender, ours=not contender.startswith("trl")) as process:
            return process.do(folder=str(folder))

    results: dict[str, list[dict[str, Any]]] = {name: [] for name in trained}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder)
        for turn in range(rounds):
            for contender in random.Random(turn).sample(trained, len(trained)):  # noqa: S311
                results[contender].append(run(contender))
        turns = [run("generation")["turns"] for _ in range(max(1, rounds - 1))]
    auto, plain, everywhere = (results[name] for name in ("ours_auto", "ours_fp32", "all_logits"))
    lora, logits = "SmolLM2-135M lora: samples/s", "logits at learnt places"
    taken = f"the precision that auto takes here, {auto[0]['precision']}, against fp32"
    less = [b["peak_mb"] - a["peak_mb"] for a, b in zip(plain, everywhere, strict=True)]
    by_hand = [b / a for of in turns for a, b in zip(of["ours"], of["by_hand"], strict=True)]
    return [
        ratio(f"{lora} in {taken}", faster(auto, plain), None, {"runs": auto}),
        *(
            ratio(
                f"{lora} against {title}",
                faster(auto, results[name]),
                least,
                {"runs": results[name]},
            )
            for name, (title, least) in ASKED.items()
        ),
        ratio(
            f"{logits}: samples/s against logits everywhere",
            faster(plain, everywhere),
            None,
            {"runs": everywhere},
        ),
        ratio(f"{logits}: less peak memory than everywhere", less, None, {"less_mb": less}, "MB"),
        ratio(
            "generation: tokens/s against model.generate on the same batches",
            by_hand,
            0.9,
            {"runs": turns},
        ),
    ]
