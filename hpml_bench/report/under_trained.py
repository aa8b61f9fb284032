"""Under-trained runs: those still learning when they ended, their validation loss falling to the last step."""

from __future__ import annotations

from hpml_bench.report.curves import Curve
from hpml_bench.report.results import Results

STILL_FALLING = 0.02
"""Share of the validation loss by which it fell between the last two evaluations, from which a run counts as
under-trained. Learning rates that end at zero flatten a curve by themselves, so that a fall is the more telling."""


def under_trained(results: Results) -> dict[str, tuple[int, ...]]:
    """Return method -> seeds whose validation loss still fell at the last step; only methods that have some."""
    curves = results.curves.get("validation_loss", {})
    found = {method: tuple(curve.seed for curve in of if _falls(curve)) for method, of in curves.items()}
    return {method: seeds for method, seeds in found.items() if seeds}


def _falls(curve: Curve) -> bool:
    if len(curve.values) < 2:
        return False
    before, last = curve.values[-2:]
    return last == min(curve.values) and before - last > STILL_FALLING * abs(before)
