"""Fine-tuning methods: their base class, and the checks of a suite's methods before its runs."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from hpml_bench.plugins.optimizer import choose_optimizer
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import MethodSpec, QuantizationSpec, Settings
from hpml_bench.system.errors import UserError
from hpml_bench.system.packages import install_extras

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from hpml_bench.plugins.group import Group
    from hpml_bench.plugins.model import TaskModel
    from hpml_bench.plugins.rows import Batch
    from hpml_bench.plugins.task import Task


class LoraOptions(Frozen):
    """Options of LoRA; the update of a weight is `alpha / r` * B A."""

    r: int = Field(default=8, ge=1)
    """Rank of the updates."""
    alpha: float = Field(default=16, gt=0)
    """Scale of the updates, before division by the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the input of the updates."""
    target: str | list[str] = "all-linear"
    """Layers to update: `all-linear`, a list of name endings, or a regular expression for whole
    names.
    """


@dataclass(frozen=True)
class Lack:
    """Something that a method's runs need and this machine doesn't have."""

    sentence: str  # what it is, and what to do
    everywhere: bool = True
    """Whether other machines lack it too, so that jobs on them need not be tried."""


class Method(ABC):
    """A fine-tuning method: `build` is required, every other hook does nothing unless it is
    overridden.

    The hooks are called on every rank, in this order:

        prepare(request, group)                          once, in a run that is recorded
        examples(rows, random)                           -> training rows shown before each prompt
        build(backbone)                                  -> encoder
        complete(model, task)                            once, after the task put its head on
        before_train(encoder, batches, total_steps)      once, before DDP wraps the model
        for each step: auxiliary_loss(encoder) with the loss, after_step(encoder, step) after the
            optimizer
        save(encoder, folder)                            rank 0, after the last step
        merge(encoder)                                   rank 0, after the evaluation on test rows

    Encoders map (input_ids, attention_mask) to an output whose first part is hidden states [B, V +
    L, H], or logits [B, V + L, vocabulary] where the task trains a whole causal language model; V
    leading positions may be virtual tokens. Heavy libraries are imported inside the hooks: listing
    methods imports no torch.
    """

    plugin_kind: ClassVar[str] = "methods"
    title: ClassVar[str]
    """Name in prose."""
    lr: ClassVar[float] = 1e-3
    """Learning rate where a suite gives none."""
    trains: ClassVar[bool] = True
    """Whether the loop trains anything; the base model takes no steps, and another program takes
    its own.
    """
    Options: ClassVar[type[Frozen]] = Frozen
    """The method's own options, with their defaults."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.measured: Mapping[str, float] = {}
        """What `prepare` measured, by the names of metrics; on rank 0."""

    @property
    def command(self) -> tuple[str, ...]:
        """Words of the command that a run starts as the suite has it; it runs only where its
        user allows commands.
        """
        return ()

    def lacks(self) -> tuple[Lack, ...]:
        """Return what its runs would lack; it is looked for before the first run, and nothing is
        started.
        """
        return ()

    def prepare(self, request: Any, group: Group) -> None:  # noqa: B027 - a hook that does nothing
        """Work before the model is loaded, for a `training.request.RunRequest`; beat
        (system.heartbeat) meanwhile.
        """

    @abstractmethod
    def build(self, backbone: Any) -> Any:
        """Return the encoder: the bare backbone changed, with `requires_grad` set on what is
        trained.

        Raises Unsupported: the method can't run with this backbone; the reason is shown in the
        report.
        """

    def examples(self, rows: int, random: np.random.Generator) -> Sequence[int]:
        """Return the numbers of the training rows that stand, answered, before each prompt of the
        evaluated rows.

        `rows` is the number of the seed's training rows; `random` depends on the seed. Raises
        Unsupported.
        """
        return ()

    @classmethod
    def depends_on_seed(cls) -> bool:
        """Return whether the method itself makes seeds differ: by training, here or elsewhere,
        or drawing examples.
        """
        return (
            cls.trains or cls.examples is not Method.examples or cls.prepare is not Method.prepare
        )

    @property
    def reads_frozen_weights(self) -> bool:
        """Whether frozen weights are used outside their layers' forward passes; bf16 then keeps
        them in float32.
        """
        return False

    @property
    def built_by_shape(self) -> bool:
        """Whether `build` and `before_train` read shapes alone of linear layers' weights, and make
        none of their type.

        Such weights may be bfloat16 from the start, as bf16 keeps frozen ones in training; else
        they are float32 first.
        """
        return False

    @property
    def quantization(self) -> QuantizationSpec | None:
        """Format of the frozen weights of the backbone's linear layers; None leaves it to the
        suite's setting.
        """
        return None

    @property
    def shards(self) -> bool:
        """Whether it trains with sharded weights (FSDP), which are whole in their layers' own
        passes only.
        """
        own = type(self)
        return own.after_step is Method.after_step and own.auxiliary_loss is Method.auxiliary_loss

    @property
    def peft_type(self) -> str | None:
        """Name of the `peft.PeftType` that the method is, for results in PEFT's shape; None
        where it is none.
        """
        return None

    @property
    def converted_rank(self) -> int:
        """Rank of the LoRA as which the adapter is scored too, after training; 0: it is not."""
        return 0

    def complete(self, model: TaskModel, task: Task) -> None:  # noqa: B027 - as all that follow, it does nothing
        """Change the whole model, such as a head that was trained before."""

    def before_train(  # noqa: B027
        self, encoder: Any, batches: Iterable[Batch], total_steps: int
    ) -> None:
        """Initialise from data; `batches` are those of the training, in its order."""

    def auxiliary_loss(self, encoder: Any) -> Tensor | None:
        """Return the term that the method adds to the loss, a scalar; None for no term."""
        return None

    def after_step(self, encoder: Any, step: int) -> None:  # noqa: B027
        """Act after the optimizer and before gradients are cleared; `step` counts from 1."""

    def state(self, encoder: Any) -> dict[str, Any] | None:
        """Return what `after_step` keeps beside trained parameters and buffers, as tensors and
        JSON; None: unknown.

        A run whose method returns None saves no checkpoint.
        """
        return {} if type(self).after_step is Method.after_step else None

    def load(self, encoder: Any, state: dict[str, Any]) -> None:  # noqa: B027
        """Take a checkpoint's state, in a run that has been built anew."""

    def merge(self, encoder: Any) -> Any | None:
        """Return the backbone with the method folded into its weights; None where that is
        impossible.
        """
        return None

    def save(self, encoder: Any, folder: Path) -> bool:
        """Write the encoder's files and return True; False leaves it to the harness, which
        writes trained weights.
        """
        return False


def make_method(spec: MethodSpec) -> Method:
    """Return a method with its options. Raises UserError: there is no such method."""
    kind = cast(type[Method], registry.plugin("methods", spec.method))
    return kind(kind.Options.model_validate(spec.options))


def check_methods(
    methods: Iterable[MethodSpec], settings: Settings, elsewhere: bool = False
) -> None:
    """Refuse methods that lack something, before hours are spent on the others.

    `elsewhere`: whether their runs are done by jobs that may be on other machines; what those may
    have is then no reason. Raises UserError: an optimizer, a package or a program is missing, or
    options are wrong.
    """
    for spec in methods:
        method = make_method(spec)
        for lack in method.lacks():
            if lack.everywhere or not elsewhere:
                raise UserError(f"method {spec.name}: {lack.sentence}")
        quantization_of(method, settings)
        if method.trains:
            choose_optimizer(spec, settings).check(settings)


def commands_of(methods: Iterable[MethodSpec]) -> dict[str, str]:
    """Return the commands that runs of these methods start, by the methods' names."""
    found = {spec.name: make_method(spec).command for spec in methods}
    return {name: shlex.join(words) for name, words in found.items() if words}


def doubts_of(methods: Iterable[MethodSpec]) -> list[str]:
    """Return what runs of these methods lack on this machine and may have on others, in
    sentences.
    """
    sentences = []
    for spec in methods:
        doubts = [lack for lack in make_method(spec).lacks() if not lack.everywhere]
        sentences += [f"method {spec.name}: {lack.sentence}" for lack in doubts]
    return sentences


def can_quantise() -> bool:
    return find_spec("bitsandbytes") is not None


def quantization_of(method: Method, settings: Settings) -> QuantizationSpec | None:
    """Return how a run stores its backbone's frozen weights: as the method says, else as the
    settings do.

    Raises UserError: the package that quantises them isn't installed.
    """
    chosen = method.quantization or settings.quantization
    if chosen is not None and not can_quantise():
        raise UserError(
            f"a backbone in {chosen.name} needs one more package, for {method.title}: "
            f"{install_extras('quant')}"
        )
    return chosen
