"""Trial of a method on a small model: the model's size, three steps of training, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpml_bench.plugins.method import Method, make_method
from hpml_bench.plugins.model import TaskModel
from hpml_bench.suite import registry
from hpml_bench.suite.settings import MethodSpec, RunSpec, Settings
from hpml_bench.training.causal_lm import LanguageModel

VOCABULARY, WIDTH, LENGTH = 100, 64, 12
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
STEPS = 3
MERGE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Finding:
    """What trying a method on a model showed; `reason` is empty where it runs."""

    reason: str
    parameters: int = 0
    merges: bool = False


def shake(model: nn.Module) -> None:
    """Move weights of one dimension: biases start at zero, and what multiplies them would get no gradient."""
    for weight in model.parameters():
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)


def set_up(task: str, method: str, options: dict[str, object], length: int) -> tuple[RunSpec, Method]:
    """Return a run of a few steps without dropout, and its method."""
    settings = Settings.model_validate(
        {"backbone": "path:", "dataset": "newswire", "task": task, "steps": STEPS, "max_length": length, "dropout": 0.0}
    )
    kind = registry.plugin("methods", method)
    spec = MethodSpec(name=method, method=method, options=kind.Options(**options).model_dump(), lr=kind.lr)
    return RunSpec(suite="support", settings=settings, method=spec, seed=0), make_method(spec)


def count_trained(model: nn.Module) -> int:
    """Return how many parameters are trained."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def train(model: TaskModel | LanguageModel, method: Method, loss_of: Callable[[], Tensor]) -> str:
    """Train a few steps on one batch, and return what went wrong.

    The losses that must fall are those of an evaluation before each step: some types draw random numbers in training.

    Args:
        model: the task's model.
        method: what changed its encoder.
        loss_of: computes the loss of the batch.

    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    frozen = {name: weight.clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    reached: set[str] = set()
    losses = []
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0)
    for step in range(1, STEPS + 1):
        losses.append(evaluated(model, loss_of))
        model.train()
        loss = loss_of()
        auxiliary = method.auxiliary_loss(model.encoder)
        torch.autograd.backward(loss if auxiliary is None else loss + auxiliary)
        reached |= {name for name, weight in trained.items() if weight.grad is not None and weight.grad.any()}
        optimizer.step()
        method.after_step(model.encoder, step)
        optimizer.zero_grad()
    moved = [n for n, weight in model.named_parameters() if n in frozen and not torch.equal(weight, frozen[n])]
    if missing := trained.keys() - reached:
        return f"no gradient reaches {min(missing)}"
    if moved:
        return f"changes the frozen {moved[0]}"
    return "" if losses[-1] < losses[0] else f"its loss doesn't fall: {losses[0]:.3f} to {losses[-1]:.3f}"


@torch.no_grad()
def evaluated(model: nn.Module, loss_of: Callable[[], Tensor]) -> float:
    """Return the loss of the batch in evaluation mode."""
    model.eval()
    return loss_of().item()


def largest(*differences: Tensor) -> float:
    """Return the largest distance from zero, NaN where there is one."""
    return torch.stack([difference.abs().max() for difference in differences]).max().item()
