"""Memory of the methods that a first suite compares, as `hpml-bench fit` predicts it, and those that don't fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from hpml_bench.starter.rates import Published
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import MethodEntry, Suite
from hpml_bench.system import gpus
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import first_line

if TYPE_CHECKING:
    from hpml_bench.fit.predict import Prediction

DROPPED = "full"
"""The method that is left out where it doesn't fit: it needs by far the most."""


class Memory(NamedTuple):
    """Predicted memory, and what follows from it."""

    sentence: str
    """Each method's memory and what there is, or why it can't be predicted."""
    here: str = ""
    """Memory that a rank may take, in words."""
    dropped: tuple[str, ...] = ()
    """Methods left out, as they don't fit here."""
    tight: tuple[str, ...] = ()
    """Others that don't fit."""


def predict_memory(settings: Settings, methods: Iterable[Published], file: str) -> Memory:
    """Return the memory of the compared methods; on a GPU with one sample at a time, the least that `auto` takes."""
    from hpml_bench.fit.predict import predict  # some seconds, which mistakes need not wait for

    entries = {m.name: MethodEntry(method=m.method, lr=m.lr, options=dict(m.options)) for m in methods if m.compared}
    settings = settings.model_copy(update={"micro_batch": 1 if gpus.visible_gpus() else None})
    try:
        found = predict(Suite(name="init", settings=settings, methods=entries), advised=False)
    except UserError as error:
        return Memory(f"Memory: not predicted: {first_line(error)}.")
    large = [need.method for need in found.needs if need.fits is False]
    return Memory(
        _in_words(found, file),
        found.here,
        tuple(name for name in large if name == DROPPED),
        tuple(name for name in large if name != DROPPED),
    )


def _in_words(found: Prediction, file: str) -> str:
    from hpml_bench.fit.predict import gigabytes

    each = ", ".join(
        f"{need.method} {need.advice if need.peak is None else gigabytes(need.peak)}" for need in found.needs
    )
    part = "one sample at a time" if found.settings.micro_batch == 1 else "the longest batch"
    return (
        f"Memory of a rank, predicted for {part}: {each}. Here: {found.here}. hpml-bench fit {file} shows its parts, "
        "and what to change where it isn't enough."
    )
