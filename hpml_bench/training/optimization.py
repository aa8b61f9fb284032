"""Optimization: a run's optimizer with its learning rates, and optimizers that torch doesn't have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from hpml_bench.plugins.optimizer import Groups, choose_optimizer
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.training.parallel import local


def make_optimizer(encoder: nn.Module, head: nn.Module, spec: MethodSpec, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer of the method's parameters, at its learning rate, and of the head's, at the suite's."""
    chosen = choose_optimizer(spec, settings)
    groups = [*chosen.groups(encoder, spec.lr), {"params": list(head.parameters()), "lr": settings.head_lr}]
    return chosen.make([group for group in groups if group["params"]], settings)


def adamw(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    """Return torch's AdamW for these groups with the settings' options; several optimizers are or contain it."""
    return torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay, fused=True
    )


class Combined(torch.optim.Optimizer):
    """Optimizer made of several, which share its parameter groups and state.

    A schedule changes the rates of the groups, and `load_state_dict` replaces groups and state: the parts see both.
    Where all of them skip a step whose gradient overflowed by themselves, fp16's loss scaler waits for no device.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        self._sizes = [len(part.param_groups) for part in parts]
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()
        self._step_supports_amp_scaling = all(getattr(part, "_step_supports_amp_scaling", False) for part in parts)

    def _share(self) -> None:
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
            for told in ("grad_scale", "found_inf"):
                setattr(part, told, getattr(self, told, None))
            part.step()


class MuonSteps(torch.optim.Muon):
    """torch's Muon; where fp16's gradient overflowed, weights and momenta stay as they are, without a wait."""

    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        found = getattr(self, "found_inf", None)
        if found is None:
            return super().step(closure)  # type: ignore[no-untyped-call]
        overflowed = found > 0
        weights = [weight for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        before = [weight.clone() for weight in weights]
        for weight in weights:
            momentum = self.state[weight].get("momentum_buffer", torch.zeros_like(weight))
            weight.grad.copy_(torch.where(overflowed, momentum, weight.grad))  # which then moves it nowhere
        super().step(closure)  # type: ignore[no-untyped-call]
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(torch.where(overflowed, old, weight))
        return None


class LionSteps(torch.optim.Optimizer):
    """Lion: steps by the sign of an interpolated momentum, with decoupled weight decay (Chen et al. 2023, algorithm 2).

    With gradient g, momentum m (first 0), rate r and weight decay d, a step on a parameter w is

        w <- w - r (sign(beta1 m + (1 - beta1) g) + d w)
        m <- beta2 m + (1 - beta2) g

    Where fp16's gradient overflowed, g = m, r = 0 and d = 0, so that nothing moves, without a wait for the device.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: the loop computes gradients before
        """Step on all parameters of a group at once: on a GPU a few kernels instead of some for each parameter."""
        found = getattr(self, "found_inf", None)
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [local(self.state[weight]["momentum"]) for weight in weights]
            gradients, weights = [local(weight.grad) for weight in weights], [local(weight) for weight in weights]
            beta1, beta2 = group["betas"]
            decay = 1 - group["lr"] * group["weight_decay"]
            if found is not None:
                gradients = [torch.where(found > 0, m, g) for m, g in zip(momenta, gradients, strict=True)]
                decay = torch.where(found > 0, 1.0, decay)
            directions = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(directions)
            if found is not None:
                torch._foreach_mul_(directions, torch.where(found > 0, 0.0, 1.0))
            if group["weight_decay"]:
                torch._foreach_mul_(weights, decay)
            torch._foreach_add_(weights, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)
