"""Settings, methods and runs: what is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from hpml_bench.config.base import Frozen
from hpml_bench.system.hashing import digest

Beta = Annotated[float, Field(ge=0, lt=1)]


class TaskSpec(Frozen):
    """Which task, by the name of its file in `hpml_bench/tasks`, and its own options."""

    name: str
    """The task's file (`hpml-bench list tasks`)."""
    options: dict[str, Any] = Field(default_factory=dict)
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
    options: dict[str, Any] = Field(default_factory=dict)
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
