"""Prediction for a suite: what each of its methods takes, the largest micro-batch that fits, and
what to change.

Rows are the suite's own where they can be read without network, else made up, of the largest size.
"""

import os
import tempfile
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import yaml
from huggingface_hub import constants

from hpml_bench.data.prepare import prepare_rows
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import Resolved, describe_model, read_config
from hpml_bench.fit.depth import Few
from hpml_bench.fit.limits import (
    FREEING,
    HEAP,
    Limit,
    fill_in_devices,
    gigabytes,
    keeps_freed,
    limit_of,
    machine,
    memory_of_processes,
    occupied_card,
)
from hpml_bench.fit.trace import Footprint, blocks_that_tell, trace
from hpml_bench.plugins.method import can_quantise
from hpml_bench.plugins.rows import write_rows
from hpml_bench.plugins.task import RETENTION, make_task
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.devices import default_threads, measures_precision
from hpml_bench.suite.settings import Digests, MethodSpec, RunSpec, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system import temporary
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.system.packages import install_extras
from hpml_bench.system.text import first_line, sanitize
from hpml_bench.training import products
from hpml_bench.training.distributed import is_sharded

TOKEN = 5  # token id of made-up rows: no special one of the usual tokenizers
# number of labels where the rows, which tell it, can't be read; a head of 32 outputs takes little
# memory
LABELS = 32
HOLDING = {"quantization", "sharding", "world_size"}
"""Settings that change what a training holds throughout or takes to load, or how much it may."""
SHORTEST = 32  # tokens below which a shorter `max_length` is not tried
Trace = Callable[[Settings], Footprint]  # traces a method under changed settings


def _largest_rows(settings: Settings, model: Resolved, folder: Path) -> Prepared:
    """Write rows of `max_length` tokens for all splits, as many as the largest batch takes."""
    names = tuple(f"label {number}" for number in range(LABELS))
    task, length = make_task(settings.task, names), settings.max_length
    ids, kind = [TOKEN] * length, task.label_type()
    # each token is a target where tokens have labels: no row of the suite takes more
    label: Any = ids if pa.types.is_list(kind) else 0
    columns = {"input_ids": ids, "label": label}
    columns |= {name: _largest_value(extra, length) for name, extra in task.extra_types().items()}
    counts = {
        "train": settings.global_batch,
        **dict.fromkeys(("validation", "test", RETENTION), settings.eval_batch),
    }
    for split, rows in counts.items():
        batch = {name: [value] * rows for name, value in columns.items()}
        write_rows(folder / split, [batch], kind, task.extra_types())
    digests = Digests(weights="", tokenizer="", data="")
    facts = dict.fromkeys(("mean", "sd", "deviation", "baseline_mae"), 1.0)
    facts |= {f"weight of {name}": 1.0 for name in names}
    backbone = str(model.folder_or_file)
    return Prepared(
        backbone=backbone,
        data=str(folder),
        label_names=names,
        facts=facts,
        digests=digests,
        pad_id=0,
    )


def _largest_value(kind: pa.DataType, length: int) -> Any:
    """Return a value of a task's further column: a prompt of all tokens but one, or two choices
    of one token.
    """
    if pa.types.is_list(kind):
        return (
            [_largest_value(kind.value_type, 1)] * 2
            if not pa.types.is_integer(kind.value_type)
            else [TOKEN]
        )
    return "" if pa.types.is_string(kind) else length - 1


PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "buckets",
    "loading",
    "step",
    "evaluation",
    "generation",
)


class Need(Frozen):
    """Memory of a method on one rank; without a footprint it can't be predicted, which `advice`
    explains.
    """

    method: str
    fits: bool | None
    footprint: Footprint | None = None
    peak: int | None = (
        None  # bytes of tensors at the largest phase's peak, and what a rank takes beside them
    )
    largest_micro_batch: int | None = (
        None  # largest part of a rank's share whose step fits; 0 for none
    )
    advice: str = ""  # what to change; empty where it surely fits

    def row(self) -> dict[str, Any]:
        """Return all by name, sizes in bytes, None for what isn't known."""
        parts = {name: getattr(self.footprint, name, None) for name in PARTS}
        largest = {"peak": self.peak, "largest_micro_batch": self.largest_micro_batch}
        return {"method": self.method, "fits": self.fits, **parts, **largest, "advice": self.advice}


class Prediction(Frozen):
    """Memory of a suite's methods."""

    settings: Settings  # with device, ranks and precision decided
    limit: Limit  # memory of a rank
    # why rows are made up, each of `max_length` tokens; empty where they are the suite's own
    made_up_rows: str
    needs: tuple[Need, ...]
    occupied: str = ""  # clause on a card of this machine much of which isn't free

    @property
    def here(self) -> str:
        clauses = [clause for clause in (self.limit.where, self.occupied) if clause]
        in_brackets = f" ({'; '.join(clauses)})" if clauses else ""
        return f"{gigabytes(self.limit.most)} for each rank{in_brackets}"


class Predictor:
    """Predictions under one suite's settings, and changes to them; rows are prepared once for
    each length.
    """

    def __init__(self, suite: Suite, memory: int | None, folder: Path) -> None:
        """Find config.json and the rows; made-up ones are written to a folder. Errors as of
        `predict`.
        """
        settled = fill_in_devices(suite.settings, memory)
        self.name, self.folder = suite.name, folder
        # read once: what is free changes while methods are traced
        self.memory = memory or machine(settled)
        self.occupied = occupied_card(settled) if memory is None else ""
        self.model: Resolved = describe_model(settled.backbone)
        _refuse_quantised(self.model.folder_or_file, settled.backbone)
        if measures_precision(suite.settings, str(settled.device)):
            threads, precision = settled.threads or default_threads(settled.world_size or 1), "fp32"
            with suppress(Exception):  # the trace says what is strange
                precision = products.measure_for(
                    settled, self.model.folder_or_file, threads
                ).precision
            settled = settled.model_copy(update={"precision": precision})
        self.settings = with_changes(settled)
        self._rows = cache(
            self._find_rows
        )  # rows, and why they are made up: "" where they are the suite's own
        self._few: dict[tuple[Any, ...], Few | None] = {}
        self._traced: dict[tuple[str, str], Footprint] = {}
        self.made_up = self._rows(self.settings.max_length, self.settings.global_batch)[1]

    def _find_rows(self, length: int, batch: int) -> tuple[Prepared, str]:
        changed = self.settings.model_copy(update={"max_length": length})
        try:
            offline = mock.patch.object(constants, "HF_HUB_OFFLINE", new=True)
            with offline, mock.patch.dict(os.environ, PIP_NO_INDEX="1"):
                return prepare_rows(changed, self.model), ""
        except UserError as error:
            return _largest_rows(
                changed, self.model, self.folder / f"{length}-{batch}"
            ), first_line(error)

    def limit(self, settings: Settings) -> Limit:
        return limit_of(settings, self.memory)

    def trace(self, method: MethodSpec, settings: Settings) -> Footprint:
        """Return a method's footprint, traced once; Unsupported: it can't run here, UserError:
        an option is wrong.
        """
        key = (method.name, settings.model_dump_json())
        if key in self._traced:
            return self._traced[key]
        spec = RunSpec(suite=self.name, settings=settings, method=method, seed=0)
        prepared, _ = self._rows(settings.max_length, settings.global_batch)
        try:
            alike = (method.name, settings.quantization, is_sharded(settings))
            if alike not in self._few:
                self._few[alike] = blocks_that_tell(spec, prepared)
            self._traced[key] = trace(spec, prepared, self._few[alike])
        except UserError:
            raise
        except Unsupported as error:
            if error.__cause__ is None:
                raise
            raise Unsupported(f"it can't be built on tensors without values: {error}") from error
        except (
            Exception
        ) as error:  # libraries raise kinds of their own where a made-up value is wrong
            raise Unsupported(
                f"it fails on tensors without values: {first_line(error).rstrip('.')}"
            ) from error
        return self._traced[key]

    def need(self, method: MethodSpec, *, advised: bool) -> Need:
        """Return the memory of a method; `advised`: with the largest micro-batch, and what to
        change if it's needed.
        """
        footprint_of = partial(self.trace, method)

        def most(settings: Settings) -> int:
            return self.limit(settings).tensors

        try:
            found = footprint_of(self.settings)
        except Unsupported as error:
            return Need(method=method.name, fits=None, advice=f"not predicted: {error}")
        fits = found.peak <= most(self.settings)
        need = Need(
            method=method.name,
            fits=fits,
            footprint=found,
            peak=found.peak + self.limit(self.settings).outside,
        )
        if not advised:
            return need
        largest, advice = None, ""
        if found.step:
            largest = largest_micro_batch(self.settings, footprint_of, most(self.settings)) or 0
        if not fits:
            advice = self._advice(method, advise(self.settings, footprint_of, most))
        elif keeps_freed(self.settings) and HEAP * found.peak > most(self.settings):
            advice = f"fits with {FREEING}; without it up to {HEAP} times the tensors are kept"
        return need.model_copy(update={"largest_micro_batch": largest, "advice": advice})

    def _advice(self, method: MethodSpec, found: Settings | None) -> str:
        if found is None and self.limit(self.settings).tensors <= 0:
            alone = gigabytes(memory_of_processes(self.settings))
            return f"the processes alone take {alone}, before any tensor; give more memory"
        if found is None:
            if can_quantise():
                return (
                    "no smaller micro-batch, checkpointing, 4-bit weights, shorter texts or fewer "
                    "ranks make it fit"
                )
            untried = f"4-bit weights were not tried: {install_extras('quant')}"
            return (
                f"no smaller micro-batch, checkpointing, shorter texts or fewer ranks make it "
                f"fit; {untried}"
            )
        freeing = f" and {FREEING}" if keeps_freed(found) else ""
        need = self.trace(method, found).peak + self.limit(found).outside
        return (
            f"fits in {gigabytes(need)} with {' '.join(differences(self.settings, found))}{freeing}"
        )


def _refuse_quantised(folder: Path, backbone: str) -> None:
    """Raise UserError where a model's files hold quantised weights, which a trace on fake tensors
    would take for floats.
    """
    config: dict[str, Any] = {}
    with suppress(Exception):  # the trace says what is strange
        config = read_config(folder / "config.json")
    quantised = config.get("quantization_config")
    if not quantised:
        return
    kind = quantised.get("quant_method") if isinstance(quantised, dict) else None
    by = f" by {sanitize(kind, 40)}" if kind else ""
    raise UserError(
        f"{backbone}: its weights are stored quantised{by} (quantization_config in config.json), "
        "and their memory isn't predicted; give the model that they were made from, with "
        "quantization: nf4 or int8 if its weights are to be small"
    )


def predict(
    suite: Suite,
    memory: int | None = None,
    methods: Iterable[str] | None = None,
    *,
    advised: bool = True,
) -> Prediction:
    """Return the memory of a suite's methods, or of some, from config.json and rows, without
    weights and GPU.

    `memory`: bytes of the card, or on a CPU of the machine; None for what is free on this machine's
    card, on a CPU all of it. `advised`: search for the largest micro-batch and settings that fit,
    by further traces. UserError: there is no config.json, weights are stored quantised, settings
    are wrong.
    """
    specs = [spec.method for spec in suite.runs(methods, [0])]
    with tempfile.TemporaryDirectory(dir=temporary.folder()) as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' hints for authors of scripts
        predictor = Predictor(suite, memory, Path(name))
        needs = tuple(predictor.need(spec, advised=advised) for spec in specs)
        settings, made_up = predictor.settings, predictor.made_up
        return Prediction(
            settings=settings,
            limit=predictor.limit(settings),
            made_up_rows=made_up,
            needs=needs,
            occupied=predictor.occupied,
        )


def too_large(suite_json: str, methods: Sequence[str], memory: int) -> str | None:
    """Return a sentence on methods of a suite that don't fit; None where all fit, or nothing is
    known.
    """
    with suppress(Exception):  # whatever a prediction finds strange, the sweep may run
        found = predict(Suite.model_validate_json(suite_json), memory, methods, advised=False)
        large = [
            f"{need.method} ({gigabytes(need.peak)})"
            for need in found.needs
            if need.peak and not need.fits
        ]
        if not large:
            return None
        here = found.model_copy(update={"occupied": occupied_card(found.settings)}).here
        return f"memory won't be enough for {', '.join(large)}: there are {here}"
    return None


# Advice: settings changed one after another, cheapest first, and traced again


def sizes(settings: Settings) -> list[int]:
    share = settings.global_batch // (settings.world_size or 1)
    return [size for size in range(1, share + 1) if share % size == 0]


def with_changes(settings: Settings, **changes: Any) -> Settings:
    """Return settings with changes, checked as a suite's; a micro-batch of a rank's whole share
    is None.
    """
    changed = Settings.model_validate({**settings.model_dump(), **changes})
    whole = changed.micro_batch == sizes(changed)[-1]
    return changed.model_copy(update={"micro_batch": None}) if whole else changed


def _largest(ascending: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Return the largest number that fits, None for none: of the largest, the smallest, and then
    by bisection.
    """
    if fits(ascending[-1]):
        return ascending[-1]
    if len(ascending) == 1 or not fits(ascending[0]):
        return None
    return ascending[
        bisect_left(ascending, True, 1, len(ascending) - 1, key=lambda number: not fits(number)) - 1
    ]


def largest_micro_batch(settings: Settings, trace: Trace, most: int) -> int | None:
    """Return the largest micro-batch whose step takes at most `most` bytes of tensors; None for
    none.
    """
    if trace(settings).least > most:
        return None
    return _largest(
        sizes(settings), lambda size: trace(with_changes(settings, micro_batch=size)).step <= most
    )


def advise(settings: Settings, trace: Trace, most: Callable[[Settings], int]) -> Settings | None:
    """Return the first settings that fit, of changes that each add to those before; None where all
    are not enough.

    `most`: bytes of tensors that a rank may have. Left out are changes with which the method
    doesn't run, and all but those of `HOLDING` where what a training holds throughout, or its
    loading, is too much.
    """
    kept, least = settings, trace(settings).least
    for change in ({}, *_changes(settings, trains=trace(settings).step > 0)):
        changed = with_changes(kept, **change)
        try:
            if not HOLDING.isdisjoint(change):
                least = trace(changed).least
            found = _fitting(changed, trace, most(changed)) if least <= most(changed) else None
        except Unsupported:
            continue
        if found is not None:
            return found
        if "sharding" not in change or trace(changed).peak < trace(kept).peak:
            kept = changed
    return None


def _changes(settings: Settings, *, trains: bool) -> Iterator[dict[str, Any]]:
    """Yield the changes, cheapest first; micro-batch and evaluation batch are searched with
    each.
    """
    if trains and not settings.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    shardable = settings.sharding == "none" and settings.precision in {"fp32", "tf32", "bf16"}
    if trains and shardable and (settings.world_size or 1) > 1:
        yield {"sharding": "fsdp"}
    if settings.quantization is None and can_quantise():
        yield {"quantization": "nf4", "sharding": "none"}
    length = settings.max_length // 2
    while length >= SHORTEST:
        yield {"max_length": length}
        length //= 2
    if (
        settings.device == "cpu" and (settings.world_size or 1) > 1
    ):  # ranks share the machine's memory
        yield {"world_size": 1, "sharding": "none"}


def _fitting(settings: Settings, trace: Trace, most: int) -> Settings | None:
    """Return settings with the largest micro-batch and evaluation batch that fit; None if the
    smallest don't.
    """
    least = with_changes(settings, micro_batch=1, eval_batch=1)
    if trace(least).peak > most:
        return None
    fitting = with_changes(settings, micro_batch=largest_micro_batch(settings, trace, most))
    halves = [settings.eval_batch >> shift for shift in range(settings.eval_batch.bit_length())][
        ::-1
    ]
    size = _largest(halves, lambda size: trace(with_changes(fitting, eval_batch=size)).peak <= most)
    return with_changes(fitting, eval_batch=size)


def differences(before: Settings, after: Settings) -> list[str]:
    old, new = before.model_dump(), after.model_dump()
    changed = {key: value for key, value in new.items() if value != old[key]}
    if isinstance(quantization := changed.get("quantization"), dict):
        changed["quantization"] = quantization["name"]
    return [f"--set {key}={yaml.safe_dump(value).split()[0]}" for key, value in changed.items()]
