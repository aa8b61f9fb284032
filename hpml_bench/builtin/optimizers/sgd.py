"""SGD with momentum, also Nesterov's (Sutskever et al. 2013)."""

from typing import Any, Self

from pydantic import Field, model_validator

from hpml_bench.plugins.optimizer import Groups, Optimizer, TorchOptimizer
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings


class SGD(Optimizer):
    """Torch's SGD; `weight_decay` is added to the gradient, as an L2 penalty."""

    title = "SGD"
    shards = True

    class Options(Frozen):
        """The momentum and its kind."""

        momentum: float = Field(default=0.9, ge=0, lt=1)
        """Decay rate of the momentum; 0 for none."""
        nesterov: bool = False
        """Whether to use Nesterov momentum: the gradient as if taken one step ahead."""

        @model_validator(mode="after")
        def _needs_momentum(self) -> Self:
            if self.nesterov and not self.momentum:
                raise ValueError("nesterov needs a momentum above 0")
            return self

    def make(self, groups: Groups, settings: Settings) -> TorchOptimizer:
        import torch

        options = self.options
        made = torch.optim.SGD(
            groups,
            momentum=options.momentum,
            nesterov=options.nesterov,
            weight_decay=settings.weight_decay,
        )
        if (
            not options.momentum
        ):  # no state exists then, and a run counts the parameters with a state
            made.register_step_post_hook(_enter)
        return made


def _enter(optimizer: TorchOptimizer, *_: Any) -> None:
    """Give each parameter with a gradient an empty entry in the state."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                optimizer.state.setdefault(parameter, {})
