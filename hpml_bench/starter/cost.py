"""Time of a comparison on this machine's CPU, from the operations of its methods and a measured product."""

from __future__ import annotations

from dataclasses import dataclass

from hpml_bench.starter.model import Model
from hpml_bench.starter.rates import Published
from hpml_bench.system import environment, gpus
from hpml_bench.training.products import FASTER, shape_of, thread_rates

REACHED = 0.4
"""Share of the measured product's rate that a training reaches, about."""
STARTING = 6.0
"""Seconds of a run beside its steps: start of the ranks, loading, writing."""
EVALUATIONS = 5
"""Evaluations on the validation rows."""


@dataclass(frozen=True)
class Work:
    """Amount of work of one run."""

    train_tokens: float
    """Tokens read in training, over all epochs."""
    eval_tokens: float
    """Tokens read in evaluations."""
    new_tokens: float
    """Tokens generated; 0 for none."""


def work_of(rows: dict[str, int], tokens: float, epochs: int, new_tokens: float, generated_rows: int) -> Work:
    """Return the work of a run over splits of so many rows of a mean number of tokens."""
    return Work(
        train_tokens=rows["train"] * epochs * tokens,
        eval_tokens=(rows["test"] + EVALUATIONS * rows["validation"]) * tokens,
        new_tokens=generated_rows * new_tokens,
    )


def time_in_words(model: Model, methods: tuple[Published, ...], work: Work, batch_tokens: int, seeds: int) -> str:
    """Return an estimate of the time here, as a sentence for a comment."""
    if gpus.visible_gpus():
        return (
            "Time: not estimated for a GPU. `hpml-bench run lora FILE` does one run, and the report says what it took."
        )
    cores = environment.cores()
    fp32, bf16 = thread_rates(shape_of(model.config, batch_tokens))
    rate = REACHED * cores * (bf16 if bf16 >= FASTER * fp32 and environment.has_bf16("cpu") else fp32)
    each = {method.name: seconds_of(model, method, work, rate) for method in methods}
    total = in_words(seeds * sum(each.values()))
    shown = ", ".join(f"{name} {in_words(value)}" for name, value in each.items())
    return (
        f"Time here, within a factor of three if nothing else runs: {total} for {len(each)} methods x {seeds} seeds; "
        f"one run: {shown}. By operations per token, and a matrix product timed just now, for {cores} cores."
    )


def seconds_of(model: Model, method: Published, work: Work, rate: float) -> float:
    """Return the seconds of a run at a rate in operations per second; embeddings are looked up, not multiplied."""
    multiplied = max(model.parameters - model.vocabulary * model.width, model.parameters // 10)
    operations = method.work * work.train_tokens * bool(method.work) + 2 * work.eval_tokens + 8 * work.new_tokens
    return STARTING + multiplied * operations / rate


def in_words(seconds: float) -> str:
    """Return a time in its largest unit."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"
