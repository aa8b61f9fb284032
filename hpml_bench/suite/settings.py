"""Settings, methods and runs, and the ids that follow from them."""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen, Growing
from hpml_bench.suite.registry import without_defaults
from hpml_bench.system.text import digest

CLASSIFICATION = "sequence_classification"  # the task of a suite that names none

MAX_LENGTH = 128  # default of the setting `max_length`, which ids leave out: that of most tasks
FORMER_DEFAULTS = {
    "validation_samples": 500
}  # ids still leave these out: the same ids mean the same runs
NEEDED: dict[str, Literal["bf16", "fp16"] | None] = {
    "float32": None,
    "bfloat16": "bf16",
    "float16": "fp16",
}
"""Type of weights -> the precision it needs."""

Beta = Annotated[float, Field(ge=0, lt=1)]


class Named(Frozen):
    """A plug-in by its name, or by name and options."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class TaskSpec(Named):
    """A kind of task, by the name of its file in `builtin/tasks`, and its options; a name alone
    is enough.
    """

    name: str = CLASSIFICATION
    """The task's file (`hpml-bench list tasks`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The task's own options."""


class DatasetSpec(Named):
    """A data set, by the name of its file in `builtin/datasets`, and its options; a name alone
    is enough.
    """

    name: str
    """The data set's file (`hpml-bench list datasets`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The data set's own options."""


class OptimizerSpec(Named):
    """An optimizer, by the name of its file in `builtin/optimizers`, and its options; a name
    alone is enough.
    """

    name: str = "adamw"
    """The optimizer's file (`hpml-bench list optimizers`)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The optimizer's own options."""


class QuantizationSpec(Named):
    """Storage of a frozen backbone's linear layers in few bits, by bitsandbytes; a name alone is
    enough.
    """

    name: Literal["nf4", "int8"]
    """`nf4`: 4-bit NormalFloat in blocks of 64 weights (Dettmers et al. 2023). `int8`: 8-bit
    integers scaled by rows, with which inputs are multiplied as integers too (LLM.int8(),
    Dettmers et al. 2022).
    """
    double_quantization: bool = True
    """Whether the scales of nf4's blocks are quantised too, to 8 bits."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type in which nf4 multiplies inputs with weights; empty for that of `precision`."""

    @model_validator(mode="after")
    def _consistent(self) -> "QuantizationSpec":
        if self.name == "int8" and (not self.double_quantization or self.compute_dtype is not None):
            raise ValueError(
                "double_quantization and compute_dtype are options of nf4; leave them out for int8"
            )
        return self


class Settings(Growing):
    """All that is identical for every method of a suite."""

    model_config = ConfigDict(allow_inf_nan=False)
    later = ("rank_by",)

    backbone: str
    """Pretrained model: `embedded:NAME`, `hub:OWNER/NAME[@REVISION]`, `path:FOLDER` or
    `wheel:NAME==VERSION/FOLDER#sha256=HEX`."""
    task: TaskSpec = TaskSpec()
    """Task that the model learns."""
    dataset: DatasetSpec
    """Data set of the rows."""
    rank_by: str | None = None
    """Metric by which methods are compared and tuned instead of the task's score, such as
    `macro_f1` where classes are rare (`hpml-bench list metrics`); empty for the task's score.
    """
    train_samples: int | None = Field(default=None, ge=1)
    """Training rows to use, drawn once with `data_seed`; empty for all. A split with fewer rows
    is taken whole, and the page says so.
    """
    validation_samples: int | None = Field(default=None, ge=1)
    """Rows for the curves; split off the training rows where the data set has no validation set
    of its own. Empty for a tenth of the training rows, or the whole validation set, but 500 at
    most (100 of `causal_lm`).
    """
    test_samples: int | None = Field(default=None, ge=1)
    """Test rows of the final evaluation; empty for all."""
    data_seed: int = Field(default=0, ge=0)
    """Seed of the subsets (and generated rows), the same for every run: seeds differ in
    initialisation and order only, and with `vary_data` in their training rows.
    """
    vary_data: bool = False
    """Whether each seed draws its own `train_samples` training rows, the same for all methods,
    so that intervals are for other training rows too (Bouthillier et al. 2021).
    """
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training rows. Give this or `steps`."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. Give this or `epochs`."""
    global_batch: int = Field(default=32, ge=1)
    """Samples per optimizer step, over all ranks; must be a multiple of `world_size`."""
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Samples per forward pass and rank; empty for a rank's whole share of `global_batch`.
    Gradients of several micro-batches are summed before the step, to the same update but for
    rounding; must divide the share. `auto` tries every method on a GPU and takes the largest
    that fits for all, once per results folder; on a CPU the share.
    """
    gradient_checkpointing: bool = False
    """Whether the backward pass computes activations again instead of keeping them: less memory,
    more time.
    """
    eval_batch: int = Field(default=64, ge=1)
    """Samples per evaluation batch and rank."""
    eval_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations on the validation rows; empty for five over the run, of which
    those before the last generate no answers.
    """
    select: Literal["last", "best", "early"] = "last"
    """Step whose weights are tested, saved and merged: the last, or that with the best
    validation score, the first of equals (`best`, `early`, with `eval_every`). `early` also ends
    a training after `patience` evaluations without a better score: costs are of the steps taken,
    rates as if none were left out. Test rows never choose.
    """
    patience: int | None = Field(default=None, ge=1)
    """Evaluations in a row without a better validation score after which `select: early` ends a
    training.
    """
    log_every: int = Field(default=10, ge=1)
    """Steps between two writes of points; their reductions over ranks are outside the timed
    steps.
    """
    warmup_steps: int = Field(default=5, ge=0)
    """First steps left out of the timed window (throughput, step times)."""
    latency_samples: int = Field(default=50, ge=0, le=2000)
    """Forward passes at batch 1 for the latency percentiles; 0 for none."""
    world_size: int | None = Field(default=None, ge=1)
    """Ranks of the process group; empty for one per GPU, or two on CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the run; `auto` takes all visible GPUs, else the CPU."""
    sharding: Literal["none", "fsdp"] = "none"
    """Sharding of weights, gradients and optimizer states over several ranks: `fsdp` is torch's
    FSDP2, with which each rank keeps its share of them while training, and all weights when the
    model is loaded and after training.
    """
    threads: int | None = Field(default=None, ge=1)
    """CPU threads per rank; empty for the cores shared out."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Precision of matrix products: `bf16` and `fp16` are autocast, the latter with loss
    scaling; `tf32` rounds inputs of float32 products on a GPU to 10 bits, `fp32` doesn't. `auto`
    takes bf16 on GPUs that have it, and on a CPU where a product of the model's shape is
    measured to be 1.15 times as fast in it.
    """
    weights: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which the backbone is loaded. bfloat16 goes with the precision bf16, float16 with
    fp16; for what is trained see `trained_weights`.
    """
    trained_weights: Literal["float32", "bfloat16"] = "float32"
    """Type of trained matrices and their gradients; vectors and the task's head stay float32.
    `bfloat16`, with the precision bf16 and without sharding, halves their memory: the optimizer
    steps on float32 copies of some at a time, its state in float32, and the results are rounded
    stochastically, up or down with the chance that keeps the mean (Gupta et al. 2015,
    arXiv:1502.02551). With trained embeddings the residual stream is bfloat16.
    """
    quantization: QuantizationSpec | None = None
    """Storage of the frozen weights of the backbone's linear layers; empty for floats. A method
    can have its own, as `qlora`; those that train or read these weights are unsupported with
    quantised ones.
    """
    max_length: int = Field(default=MAX_LENGTH, ge=2)
    """Tokens per text, end token included; longer texts are cut, or left out by `causal_lm`,
    whose default is 1024.
    """
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout of the backbone; empty for that of its configuration."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """Optimizer of the methods that have none of their own."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's decay rates, also where another optimizer contains it."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon, likewise."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of every trained parameter; decoupled, but for SGD, which takes it as an L2
    penalty.
    """
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    """Learning rate after warm-up: decays to 0, linearly or as half a cosine, or stays; with
    `wsd` (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395) stays, and decays to 0
    linearly over the last `lr_decay` of the steps.
    """
    lr_warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises linearly from 0."""
    lr_decay: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps over which `wsd` decays; other schedules ignore it."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest global gradient norm; empty for no clipping."""
    head_lr: float = Field(default=1e-3, gt=0)
    """Learning rate of the task's head, the same for every method."""

    @property
    def needed_precision(self) -> Literal["bf16", "fp16"] | None:
        """Precision that the types of weights need, None where each will do."""
        return NEEDED[self.weights] or NEEDED[self.trained_weights]

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "max_length" in value:
            return value
        named = value.get("task", CLASSIFICATION)
        name = named.get("name", CLASSIFICATION) if isinstance(named, dict) else named
        if name not in registry.names("tasks"):
            return value
        own = registry.plugin("tasks", name).max_length
        return value if own == MAX_LENGTH else {**value, "max_length": own}

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if self.world_size is not None and self.global_batch % self.world_size:
            raise ValueError(
                f"global_batch {self.global_batch} is not a multiple of the {self.world_size} "
                "ranks; change global_batch or --nproc"
            )
        share = None if self.world_size is None else self.global_batch // self.world_size
        if isinstance(self.micro_batch, int) and share is not None and share % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide a rank's share of global_batch, "
                f"{share} samples; change micro_batch, global_batch or --nproc"
            )
        for name, kind in (("weights", self.weights), ("trained_weights", self.trained_weights)):
            needed = NEEDED[kind]
            given = self.precision if self.precision != "auto" else self.needed_precision
            if needed is not None and needed != given:
                raise ValueError(
                    f"{name} {kind} need precision {needed}, not {given}; change one of them"
                )
        if self.train_samples is not None and self.train_samples < self.global_batch:
            raise ValueError(
                f"train_samples {self.train_samples} is less than one global_batch of "
                f"{self.global_batch}"
            )
        if self.select != "last" and self.eval_every is None:
            raise ValueError(
                f"select {self.select} chooses among evaluations of the validation rows; give "
                f"eval_every"
            )
        if (self.select == "early") != (self.patience is not None):
            raise ValueError(
                "select early and patience, the evaluations after which it ends a training, go "
                "together"
            )
        if self.sharding != "none" and self.precision == "fp16":
            raise ValueError(
                "sharding takes no precision fp16, whose loss scale ranks would change apart; "
                "take bf16"
            )
        if self.sharding != "none" and self.trained_weights != "float32":
            raise ValueError(
                "sharding takes one type of trained weights, float32; leave trained_weights out"
            )
        if self.schedule == "wsd" and self.lr_warmup + self.lr_decay > 1:
            raise ValueError(
                f"lr_warmup {self.lr_warmup:g} and lr_decay {self.lr_decay:g} are together more "
                f"than the whole training"
            )
        return self


class MethodSpec(Growing):
    """A method, with all that differs between the methods of a suite."""

    model_config = ConfigDict(allow_inf_nan=False)
    later = ("optimizer",)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}$")
    """Its name in this suite."""
    method: str
    """The file in `builtin/methods` (or an entry point's name)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The method's own options, complete with their defaults."""
    lr: float = Field(gt=0)
    """Learning rate of the method's parameters; the head's is in the settings."""
    optimizer: OptimizerSpec | None = None
    """The method's own optimizer, its options complete with their defaults; none where it is the
    suite's.
    """


class Digests(Frozen):
    """SHA-256 of a run's inputs: weights, tokenizer and data."""

    weights: str
    tokenizer: str
    data: str
    revision: str | None = None
    """Commit of a hub model, where there is one."""


class RunSpec(Frozen):
    """One run: everything that determines it."""

    suite: str
    settings: Settings
    method: MethodSpec
    seed: int = Field(ge=0)

    @property
    def run_id(self) -> str:
        """Folder name: method, seed, and a digest of all that differs from the defaults."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.method.name).strip("-").lower()
        whole = {
            "suite": self.suite,
            "settings": identity(self.settings),
            "method": method_identity(self.method),
        }
        return f"{name}-s{self.seed}-{digest(whole | {'seed': self.seed}, 10)}"


def identity(settings: Settings) -> dict[str, Any]:
    """Return the settings that ids hash: those that differ from their defaults, so that a new
    setting renames no run.

    Ids leave out the default that a setting had first (`FORMER_DEFAULTS`). Options have no such
    list: a changed default of one needs a new schema version (records.run.SCHEMA_VERSION), or the
    same ids would mean other runs.
    """
    dumped = settings.model_dump(mode="json", exclude_defaults=True)
    for key in ("task", "dataset", "optimizer"):
        dumped.pop(key, None)
    for key, former in FORMER_DEFAULTS.items():
        value = dumped.pop(key, None)
        if value != former:
            dumped[key] = value
    specs: dict[registry.Kind, TaskSpec | DatasetSpec | OptimizerSpec]
    specs = {"tasks": settings.task, "datasets": settings.dataset, "optimizers": settings.optimizer}
    for kind, spec in specs.items():
        options = without_defaults(kind, spec.name, spec.options)
        dumped[kind] = {"name": spec.name, "options": options} if options else spec.name
    if dumped["optimizers"] == OptimizerSpec().name:
        del dumped["optimizers"]
    return dumped


def method_identity(method: MethodSpec) -> dict[str, Any]:
    """Return the parts of a method that ids hash: all but options at their defaults."""
    options = without_defaults("methods", method.method, method.options)
    hashed = method.model_dump(mode="json") | {"options": options}
    if (own := method.optimizer) is not None:
        hashed["optimizer"] = {
            "name": own.name,
            "options": without_defaults("optimizers", own.name, own.options),
        }
    return hashed
