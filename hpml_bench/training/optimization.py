"""Optimization: a run's optimizer with its learning rates, and optimizers that torch doesn't
have.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from hpml_bench.plugins.optimizer import Groups, choose_optimizer
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.training.distributed import local
from hpml_bench.training.trial import kept_generators

STEPPED_TOGETHER = 1 << 24
"""Most values of weights in bfloat16 of which float32 copies are made at a time; those of one
weight may be more.
"""


def make_optimizer(
    encoder: nn.Module, head: nn.Module, spec: MethodSpec, settings: Settings, seed: int = 0
) -> torch.optim.Optimizer:
    """Return the optimizer of the method's parameters and the head's, each at its rate; `seed`:
    of rounding to bf16.
    """
    chosen = choose_optimizer(spec, settings)
    groups = [
        *chosen.groups(encoder, spec.lr),
        {"params": list(head.parameters()), "lr": settings.head_lr},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.trained_weights == "float32":
        return chosen.make(groups, settings)
    weights = parameters_in(groups)
    copies = [nn.Parameter(_nothing_like(weight)) for weight in weights]
    of = dict(zip(map(id, weights), copies, strict=True))
    of_copies = [
        group | {"params": [of[id(weight)] for weight in group["params"]]} for group in groups
    ]
    return Rounded(chosen.make(of_copies, settings), weights, copies, seed)


def parameters_in(groups: Groups) -> list[nn.Parameter]:
    return [parameter for group in groups for parameter in group["params"]]


def adamw(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    """Return torch's AdamW for these groups with the settings' options; several optimizers are
    or contain it.
    """
    return torch.optim.AdamW(
        groups,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


class Combined(torch.optim.Optimizer):
    """Optimizer made of several, which share its parameter groups and state."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        self._sizes = [len(part.param_groups) for part in parts]
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        # a schedule changes the groups' rates, and `load_state_dict` replaces groups and state: the
        # parts see both
        groups = iter(self.param_groups)
        for part, size in zip(self.parts, self._sizes, strict=True):
            part.state = self.state
            part.param_groups = [next(groups) for _ in range(size)]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: the loop computes gradients before
        for part in self.parts:
            part.step()


class Rounded(Combined):
    """An optimizer's steps on weights in bfloat16: on float32 copies, some weights at a time,
    rounded stochastically.

    Rounded up or down with the chance that keeps the mean, small steps add up (Gupta et al. 2015,
    arXiv:1502.02551). The random bits depend on the seed and the number of the step alone, so that
    ranks round alike.
    """

    def __init__(
        self,
        made: torch.optim.Optimizer,
        weights: Sequence[nn.Parameter],
        copies: Sequence[nn.Parameter],
        seed: int,
    ) -> None:
        """Let `made`, an optimizer of the copies, step on the weights; a copy has values during
        its step alone.
        """
        super().__init__(made.parts if isinstance(made, Combined) else [made])
        self.weights, self._copies, self._seed = list(weights), copies, seed
        self.param_groups[0]["rounded"] = 0  # steps so far, in a checkpoint too

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: the loop computes gradients before
        reached = [
            pair
            for pair in zip(self.weights, self._copies, strict=True)
            if pair[0].grad is not None
        ]
        first = self.param_groups[0]
        with kept_generators():
            torch.manual_seed(self._seed * 1_000_003 + first["rounded"])
            while reached:
                sizes = accumulate(weight.numel() for weight, _ in reached)
                together = max(1, sum(size <= STEPPED_TOGETHER for size in sizes))
                self._step_on(reached[:together])
                reached = reached[together:]
        first["rounded"] += 1

    def _step_on(self, part: list[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Step on weights, each with its copy, whose values and gradients are gone when this
        returns.
        """
        weights: list[Tensor] = [weight for weight, _ in part]
        values, gradients = (
            _as_float32(weights),
            _as_float32([cast(Tensor, weight.grad) for weight in weights]),
        )
        for (_, copy), value, gradient in zip(part, values, gradients, strict=True):
            copy.data, copy.grad = value, gradient
        super().step()
        stepped = [
            rounded(copy) if weight.dtype == torch.bfloat16 else copy for weight, copy in part
        ]
        torch._foreach_copy_(weights, stepped)
        for weight, copy in part:
            copy.data, copy.grad = _nothing_like(weight), None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state as the only part does: that of bitsandbytes keeps integers, which torch's
        would make float32.
        """
        if len(self.parts) > 1:
            super().load_state_dict(state_dict)
        else:
            self.parts[0].load_state_dict(state_dict)
            self.state, self.param_groups = self.parts[0].state, self.parts[0].param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self.weights:
            weight.grad = None if set_to_none or weight.grad is None else weight.grad.zero_()


def _as_float32(tensors: Sequence[Tensor]) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=torch.float32) for tensor in tensors]
    torch._foreach_copy_(copies, [*tensors])
    return copies


def _nothing_like(weight: Tensor) -> Tensor:
    """Return a float32 tensor of a weight's shape that takes no memory."""
    return torch.zeros((), device=weight.device).expand(weight.shape)


def rounded(values: Tensor) -> Tensor:
    """Return float32 values in bfloat16: of the two next to it, each with a chance by its
    distance.
    """
    # bfloat16 has the first 16 bits of float32: random ones are added to the others, which are cut
    # off; the bits of a GPU's NaN, 0x7FFFFFFF, would become those of 0: adding 0 times the values
    # keeps it
    bits = torch.randint(2**16, values.shape, dtype=torch.int32, device=values.device)
    cut = bits.add_(values.view(torch.int32)).bitwise_and_(-(2**16)).view(torch.float32)
    return cut.add_(values, alpha=0).to(torch.bfloat16)


class LionSteps(torch.optim.Optimizer):
    """Lion: steps by the sign of an interpolated momentum, with decoupled weight decay (Chen et al.
    2023, algorithm 2).

    With gradient g, momentum m (first 0), rate r and weight decay d, a step on a parameter w is

        w <- w - r (sign(beta1 m + (1 - beta1) g) + d w)
        m <- beta2 m + (1 - beta2) g
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], betas: tuple[float, float], weight_decay: float
    ) -> None:
        """Take groups of parameters, each with its rate `lr`."""
        super().__init__(params, {"betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: the loop computes gradients before
        """Step on all parameters of a group at once: on a GPU a few kernels instead of some for
        each parameter.
        """
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [local(self.state[weight]["momentum"]) for weight in weights]
            gradients, weights = (
                [local(weight.grad) for weight in weights],
                [local(weight) for weight in weights],
            )
            beta1, beta2 = group["betas"]
            directions = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(directions)
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)
