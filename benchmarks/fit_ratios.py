"""Memory predicted by `hpml-bench fit` over that of real steps, by torch's allocator on a CPU.

    python benchmarks/fit_ratios.py [--only NAME]

trains models of a few layers with random weights: every method of the packaged suites and PEFT's
types, each with and without gradient checkpointing, in micro-batches, and with weights in bfloat16.
It prints the ratio of the predicted to the real peak of each phase: the smallest, the median, the
largest, and the worst cases by name. Part of a real peak are buffers inside kernels, which differ
from processor to processor; ONEDNN_MAX_CPU_ISA (AVX512_CORE, AVX2) and ATEN_CPU_CAPABILITY (avx512,
avx2) give the kernels of processors that have less.
"""

import argparse
import gc
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from support_table import COMMON
from tokenizers import Tokenizer, models
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import weight_files, weight_types
from hpml_bench.fit.trace import trace
from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.group import Group
from hpml_bench.plugins.rows import write_rows
from hpml_bench.plugins.task import make_task
from hpml_bench.suite import registry
from hpml_bench.suite.settings import (
    CLASSIFICATION,
    Digests,
    MethodSpec,
    RunSpec,
    Settings,
    TaskSpec,
)
from hpml_bench.system.errors import Unsupported
from hpml_bench.training import evaluation, saving
from hpml_bench.training import model as model_module
from hpml_bench.training.assembly import Assembly, assemble
from hpml_bench.training.distributed import process_group
from hpml_bench.training.trainer import Trainer

MOST = 1.05  # largest ratio that is meant
PHASES = ("loading", "step", "evaluation", "generation")
PROFILED: dict[str, Any] = {"activities": [ProfilerActivity.CPU], "profile_memory": True}
WIDTH, LAYERS, VOCABULARY, LENGTH = 128, 3, 2048, 64
"""Shape of the models: large enough that a batch's activations are most of the memory."""
ROWS, BATCH = 16, 8
TYPES = (
    "IA3",
    "P_TUNING",
    "PREFIX_TUNING",
    "LN_TUNING",
    "VERA",
    "ADALORA",
    "LOHA",
    "LOKR",
    "OFT",
    "BOFT",
    "HRA",
    "C3A",
    "RANDLORA",
    "ROAD",
    "GRALORA",
    "FOURIERFT",
    "DORA",
    "RSLORA",
    "PISSA",
    "DELORA",
    "MISS",
    "TRAINABLE_TOKENS",
    "CPT",
    "UNILORA",
    "VBLORA",
    "WAVEFT",
)
"""PEFT's types whose memory is compared."""
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "checkpointing": {"gradient_checkpointing": True},
    "micro-batches": {"micro_batch": 2},
    "bf16": {"precision": "bf16", "weights": "bfloat16"},
    "rounded": {"precision": "bf16", "weights": "bfloat16", "trained_weights": "bfloat16"},
}
Phase = Callable[[str], AbstractContextManager[Any]]  # context of a phase, by its name


class Measured(NamedTuple):
    """Bytes at the peaks of a real run's phases, and those held before the first."""

    held: int
    loading: int
    step: int
    evaluation: int
    generation: int
    tensors: dict[str, int]
    """Peak of each phase without kernels' buffers: on every processor the same to some kB, if
    operators copy alike.
    """


def measured(spec: RunSpec, prepared: Prepared, group: Group) -> Measured:
    """Return the memory of a real rehearsal and step: tensors that are there, and the allocator's
    events from then on.

    The allocator doesn't report frees of what it gave before the profile began, so DDP and the
    optimizer are made in it, and frozen weights converted before it. Nor does it report frees by
    other threads, so that DDP sends no weights when it is made: the thread of gloo that sends them
    is sometimes the last to hold the buffer.
    """
    load = model_module.load_backbone

    def copied(*arguments: Any) -> Any:
        """Load as to a card: weights that have the file's type would stay in the mapped file."""
        found, types = load(*arguments), weight_types(Path(prepared.backbone))
        for weight in found.parameters():
            if saving.TYPES.get(weight.dtype) in types:
                weight.data = weight.data.clone()
        return found

    gc.collect()  # what others left in cycles would be freed within the profile, and lower its peak
    with (
        mock.patch.dict(os.environ, HF_DEACTIVATE_ASYNC_LOAD="1"),
        mock.patch.object(model_module, "load_backbone", copied),
        profile(**PROFILED) as loaded,
    ):
        run = assemble(spec, prepared, group)
        gc.collect()
    # parameters, buffers, and what modules keep beside these, in dicts too
    values = tree_leaves([vars(module) for module in run.model.modules()])
    storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
    weights = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    del values, storages  # what is freed within a profile must be held by the run alone
    files = weight_files(Path(prepared.backbone))
    loading = _peak_of_loading(loaded, files)
    with profile(**PROFILED) as profiled:
        if run.method.trains:
            with mock.patch("torch.nn.parallel.distributed._sync_module_states"):
                trainer = Trainer(run)
            train(trainer)
            del trainer
        else:
            _evaluate(run)
        # what is freed after a profile keeps its size there, and is counted again in the next one
        del run
        gc.collect()
    live, peaks = _peaks(profiled)
    _, tensors = _peaks(profiled, buffers=False)
    held = live.get("evaluation", 0)
    alone = {phase: weights + peak for phase, peak in tensors.items()}
    alone["loading"] = _peak_of_loading(loaded, files, buffers=False)
    step, evaluated, generated = (
        weights + peaks[phase] if phase in peaks else 0 for phase in PHASES[1:]
    )
    return Measured(weights + held, loading, step, evaluated, generated, alone)


def _peak_of_loading(profiled: profile, files: Sequence[Path], *, buffers: bool = True) -> int:
    """Return the peak of what the allocator gave; mapping a file is an event too, of the file's
    size.
    """
    sizes = {file.stat().st_size for file in files}
    events = _events([*_nodes(profiled)], buffers)
    changes = (
        event.extra_fields.alloc_size
        for event in events
        if abs(event.extra_fields.alloc_size) not in sizes
    )
    return int(max(accumulate(changes)))


def train(trainer: Trainer, phase: Phase = record_function) -> None:
    """Rehearse the largest evaluation batches and take a step on the largest training batches,
    each in its phase.
    """
    trainer.model.train()
    batches = trainer.largest()
    with trainer.stepped_nowhere(batches[0][: trainer.group.world]):
        _evaluate(trainer.assembly, phase)
        with phase("step"):
            for indices in batches:
                trainer.step(1, indices)


def _evaluate(run: Assembly, phase: Phase = record_function) -> None:
    with phase("evaluation"):
        evaluation.rehearse_losses(run, run.validation)
    if run.generator is not None:
        with phase("generation"):
            evaluation.rehearse_generation(run, run.validation)


def _peaks(profiled: profile, *, buffers: bool = True) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes that the allocator's events leave allocated when a phase begins, and
    their peak in it.
    """
    nodes = [*_nodes(profiled)]
    phases = {
        node.name: (node.start_time_ns, node.end_time_ns) for node in nodes if node.name in PHASES
    }
    live, first, peaks = 0, dict[str, int](), dict[str, int]()
    for event in _events(nodes, buffers):
        size = event.extra_fields.alloc_size
        for phase, (begin, end) in phases.items():
            if begin <= event.start_time_ns <= end:
                first.setdefault(phase, live)
                peaks[phase] = max(peaks.get(phase, live), live + size)
        live += size
    return first, peaks


def _nodes(profiled: profile) -> Iterator[Any]:
    return _below(profiled.profiler.kineto_results.experimental_event_tree())  # type: ignore[union-attr]


def _events(nodes: Sequence[Any], buffers: bool) -> list[Any]:
    """Return the allocator's events in their order, with those of kernels' buffers or without."""
    left_out = set() if buffers else {id(event) for node in nodes for event in _buffers(node)}
    events = (
        node for node in nodes if node.tag == _EventType.Allocation and id(node) not in left_out
    )
    return sorted(events, key=lambda event: int(event.start_time_ns))


def _below(nodes: list[Any]) -> Iterator[Any]:
    """Yield a profile's events with all that happened in them."""
    for node in nodes:
        yield node
        yield from _below(node.children)


def _buffers(operator: Any) -> Iterator[Any]:
    """Yield the allocator's events of what an operator took and gave back itself, not by an
    operator within it.

    Those are buffers of its kernel, such as oneDNN's: a tensor outlives the operator that made it.
    """
    taken: dict[int, Any] = {}
    if operator.name.startswith("aten::"):
        for event in [child for child in operator.children if child.tag == _EventType.Allocation]:
            if event.extra_fields.alloc_size > 0:
                taken[event.extra_fields.ptr] = event
            elif event.extra_fields.ptr in taken:
                yield taken.pop(event.extra_fields.ptr)
                yield event


def cases() -> Iterator[tuple[str, RunSpec]]:
    """Yield name and run: methods and PEFT's types with the variants, on a classifier and on a
    language model.
    """
    own = ("lora", "prompt_tuning", "adapter", "full", "head", "none")
    methods = [*((name, {}) for name in own), *(("peft", {"type": kind}) for kind in TYPES)]
    every = product((CLASSIFICATION, "causal_lm"), methods, VARIANTS.items())
    for task, (method, options), (variant, changes) in every:
        if (task, method) in {(CLASSIFICATION, "none"), ("causal_lm", "head")}:  # unsupported
            continue
        if task == CLASSIFICATION and method == "peft" and variant in {"micro-batches", "bf16"}:
            continue  # types are tried with all variants on the language model
        name = " ".join(filter(None, (task, str(options.get("type", method)), variant)))
        yield name, spec_of(task, method, options, changes)
    for task, method in product(("regression", "token_classification"), ("lora", "full")):
        yield f"{task} {method}", spec_of(task, method, {}, {})
    for optimizer in ("lion", "sgd", "muon", "lora_plus"):
        method = "lora" if optimizer == "lora_plus" else "full"
        yield (
            f"causal_lm {method} {optimizer}",
            spec_of("causal_lm", method, {}, {"optimizer": optimizer}),
        )


def spec_of(task: str, method: str, options: dict[str, Any], changes: dict[str, Any]) -> RunSpec:
    """Return a run of one rank on a CPU."""
    of_task = {"scorer": "exact", "max_new_tokens": 8} if task == "causal_lm" else {}
    values: dict[str, Any] = {
        "backbone": "path:",
        "dataset": "newswire",
        "task": {"name": task, "options": of_task},
        "steps": 100,
        "global_batch": BATCH,
        "eval_batch": BATCH,
        "max_length": LENGTH,
        "device": "cpu",
        "world_size": 1,
        "threads": 1,
        "precision": "fp32",
        "dropout": 0.1,
    }
    kind = registry.plugin("methods", method)
    made = MethodSpec(
        name=method, method=method, options=kind.Options(**options).model_dump(), lr=kind.lr
    )
    return RunSpec(
        suite="fit", settings=Settings.model_validate(values | changes), method=made, seed=0
    )


def prepare(
    folder: Path,
    task: TaskSpec,
    rows: int = ROWS,
    length: int = LENGTH,
    shape: dict[str, Any] | None = None,
    device: str = "cpu",
) -> Prepared:
    """Save a model with random weights and rows of lengths from a quarter of the longest on, once
    per folder.

    `shape` is that of a Llama other than the small one, whose weights are made on a device, in
    bfloat16.
    """
    made = make_task(task, tuple("abcd"))
    backbone, data = folder / made.model_kind, folder / f"{task.name}-{rows}"
    if not backbone.exists():
        _save_model(backbone, made.model_kind, length, shape, device)
    if not data.exists():
        for split in ("train", "validation", "test"):
            write_rows(
                data / split, [_rows(made, rows, length)], made.label_type(), made.extra_types()
            )
    facts = {"mean": 0.5, "sd": 0.3, "deviation": 0.3, "baseline_mae": 0.1}
    digests = Digests(weights="", tokenizer="", data="")
    return Prepared(
        backbone=str(backbone),
        data=str(data),
        label_names=tuple("abcd"),
        facts=facts,
        digests=digests,
        pad_id=1,
    )


def _save_model(
    folder: Path, kind: str, length: int, shape: dict[str, Any] | None, device: str
) -> None:
    common = COMMON | {"vocab_size": VOCABULARY}
    small = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    if kind == "encoder":
        model = GPT2Model(
            GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=2 * length, **common)
        )
    else:
        own = shape or small | {"intermediate_size": 3 * WIDTH}
        config = LlamaConfig(max_position_embeddings=2 * length, **common | own)
        with torch.device(device if shape else "cpu"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16 if shape else torch.float32
            )
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))  # noqa: S106 - no password
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)  # noqa: S106


def _rows(task: Any, rows: int, length: int) -> dict[str, list[Any]]:
    """Return rows from a quarter of the length to all of it; a language model's second half are
    targets.
    """
    lengths = np.linspace(length // 4, length, rows).astype(int)
    ids = [[5 + place % 50 for place in range(tokens)] for tokens in lengths]
    per_token, numeric = (
        pa.types.is_list(task.label_type()),
        pa.types.is_floating(task.label_type()),
    )
    half = [[IGNORE_INDEX] * (len(row) // 2) + row[len(row) // 2 :] for row in ids]
    tags = (
        half
        if task.model_kind == "language_model"
        else [[place % 4 for place in range(len(row))] for row in ids]
    )
    labels: list[Any] = (
        tags if per_token else [number / rows if numeric else number % 4 for number in range(rows)]
    )
    values: dict[str, list[Any]] = {
        "prompt": [len(row) // 2 for row in ids],
        "bytes": [9] * rows,
        "cut": [0] * rows,
    }
    texts: dict[str, list[Any]] = {
        "question": ["q"] * rows,
        "expected": ["a"] * rows,
        "choices": [["a", "b"]] * rows,
    }
    more = values | texts | {"choice_ids": [[[5], [6]]] * rows, "turns": [""] * rows}
    return {"input_ids": ids, "label": labels} | {name: more[name] for name in task.extra_types()}


class Compared(NamedTuple):
    """A case with predicted and real bytes of each phase, real ones of tensors alone, and why
    there are none.
    """

    name: str
    predicted: dict[str, int]
    real: dict[str, int]
    tensors: dict[str, int]
    reason: str = ""

    @property
    def ratios(self) -> dict[str, float]:
        """Predicted over real bytes, of the phases that there are; for loading also over those
        of tensors alone.
        """
        found = {phase: self.predicted[phase] / real for phase, real in self.real.items() if real}
        alone = self.tensors.get("loading")
        return found | (
            {} if alone is None else {"loading, tensors": self.predicted["loading"] / alone}
        )


def compare(name: str, spec: RunSpec, folder: Path, group: Group) -> Compared:
    """Predict and measure a run; a method that doesn't run with its model has a reason instead."""
    prepared = prepare(folder, spec.settings.task)
    try:
        real = measured(spec, prepared, group)
    except Unsupported as error:
        return Compared(name, {}, {}, {}, str(error))
    found = trace(spec, prepared)
    predicted, peaks = (
        {phase: int(getattr(of, phase)) for phase in PHASES} for of in (found, real)
    )
    return Compared(name, predicted, peaks, real.tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicted over real memory.")
    parser.add_argument("--only", default="", help="part of the names of cases")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: list[Compared] = []
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    settings = spec_of(CLASSIFICATION, "lora", {}, {}).settings
    with process_group(settings) as group, tempfile.TemporaryDirectory() as folder:
        for name, spec in ((name, spec) for name, spec in cases() if options.only in name):
            try:
                found.append(compare(name, spec, Path(folder), group))
            except Exception as error:  # named, and the others go on
                found.append(Compared(name, {}, {}, {}, f"{type(error).__name__}: {error}"[:300]))
            shown = (
                " ".join(f"{phase} {ratio:.4f}" for phase, ratio in found[-1].ratios.items())
                or found[-1].reason
            )
            print(f"{name}: {shown}", flush=True)
    for phase in (*PHASES, "loading, tensors"):
        if ratios := {one.name: one.ratios[phase] for one in found if phase in one.ratios}:
            low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
            within = sum(1 <= ratio <= MOST for ratio in ratios.values())
            print(
                f"{phase}: {len(ratios)} runs, {ratios[low]:.4f} ({low}), median "
                f"{statistics.median(ratios.values()):.4f}, {ratios[high]:.4f} ({high}); {within} "
                f"from 1 to {MOST}"
            )


if __name__ == "__main__":
    main()
