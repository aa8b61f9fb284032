"""Optimizers: their base class, and the choice between a method's and the suite's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.registry import validate_options
from hpml_bench.suite.settings import MethodSpec, Settings

if TYPE_CHECKING:
    from torch import nn, optim

    TorchOptimizer = optim.Optimizer
else:
    TorchOptimizer = Any

Groups = list[dict[str, Any]]
"""Parameter groups as torch has them: `params` and `lr`, and whatever else an optimizer takes
for each group.
"""


class Optimizer(ABC):
    """An optimizer: `title` and `make` are required.

    In the order of the calls:

        check(settings)                 before anything runs, by the process that starts the ranks
        groups(encoder, lr)             on every rank, once the model is built
        make(groups, settings)          with the head's group at the end, at the suite's `head_lr`

    The loop multiplies the rates of all groups by the schedule, and records the first group's as
    the method's.
    """

    plugin_kind: ClassVar[str] = "optimizers"
    title: ClassVar[str]
    """Name in prose."""
    Options: ClassVar[type[Frozen]] = Frozen
    """The optimizer's own options, with their defaults."""
    shards: ClassVar[bool] = False
    """Whether it steps on sharded tensors (`sharding: fsdp`): each rank's part as it would on
    the whole.
    """

    def __init__(self, options: Any) -> None:
        self.options = options

    def check(self, settings: Settings) -> None:
        """Refuse to run where something is missing, such as a package; must not import a training
        library.

        Raises UserError: says what to install, or what to take instead.
        """
        return

    def groups(self, encoder: nn.Module, lr: float) -> Groups:
        """Return the groups of the method's trained parameters, the first of them at its rate `lr`.

        Raises Unsupported: the optimizer can't train the method's parameters; the reason is shown
        in the report.
        """
        return [
            {
                "params": [
                    parameter for parameter in encoder.parameters() if parameter.requires_grad
                ],
                "lr": lr,
            }
        ]

    @abstractmethod
    def make(self, groups: Groups, settings: Settings) -> TorchOptimizer:
        """Return torch's optimizer for these groups, none of which is empty.

        Each parameter that got a gradient must have an entry in its `state` after a step: a run
        counts them. A step at rate 0 with gradients of 0 must move nothing: the rehearsal takes
        one, and clears the state afterwards. Checkpoints hold its `state_dict`, of tensors and
        JSON's types.
        """


def choose_optimizer(method: MethodSpec, settings: Settings) -> Optimizer:
    """Return the method's own optimizer, else the suite's.

    Raises UserError: there is none of that name, or its options are wrong.
    """
    own = method.optimizer is not None
    spec = method.optimizer or settings.optimizer
    where = f"methods.{method.name}.optimizer.options" if own else "optimizer.options"
    options = validate_options("optimizers", spec.name, spec.options, where)
    return cast(Optimizer, registry.plugin("optimizers", spec.name)(options))
