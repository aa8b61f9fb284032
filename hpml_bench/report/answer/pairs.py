"""Pairs of an answer from compared pairs, in the units that are shown."""

from __future__ import annotations

import math

from hpml_bench.report.answer.model import Pair
from hpml_bench.statistics import Better, Comparison


def pair_of(c: Comparison, better: Better, scale: float = 1.0) -> Pair:
    """Return a pair with its numbers times `scale`, a cost's as factors."""

    def shown(value: float | None) -> float | None:
        return None if value is None else plain(math.exp(value) if c.ratio else scale * value)

    (low, high), least = c.deciding or (None, None), c.detectable
    return Pair(
        a=c.a,
        b=c.b,
        v=c.verdict,
        w=c.winner(better),
        d=plain(math.exp(c.difference.mean) if c.ratio else scale * c.difference.mean),
        lo=shown(c.difference.low),
        hi=shown(c.difference.high),
        wlo=shown(low),
        whi=shown(high),
        p=c.p,
        ph=c.p_adjusted,
        need=c.seeds_needed,
        n=c.difference.n,
        small=c.verdict == "different" and c.equivalent,
        skew=c.uncertain,
        p_margin=c.p_equivalent,
        p_margin_adjusted=c.p_equivalent_adjusted,
        found=None if least is None else plain(100 * math.expm1(least) if c.ratio else scale * least),
    )


def plain(value: float) -> float:
    """Return a value without the noise of its last binary digits: ten significant decimals."""
    return float(f"{value:.10g}")
