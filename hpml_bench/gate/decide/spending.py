"""Alpha spending over interim looks: the levels of all looks add up to the stated one."""

from __future__ import annotations

from collections.abc import Sequence

from hpml_bench.gate.records import Rules
from hpml_bench.system.errors import UserError


def levels(total: float, looks: Sequence[int], hypotheses: int = 1) -> tuple[float, ...]:
    """Return the level of each look; together they are `total`, so that by Boole no correlation can exceed it.

    Spent in proportion to the pairs seen (Kim and DeMets 1987, with exponent 1): half of it at half of the pairs.
    O'Brien and Fleming's function would leave the first look too little for a rank test: the least p of n pairs is
    2^-n, and Holm's first step requires level / hypotheses. A look that can't reach that is passed over (its level is
    0), and its share goes to the next.
    """
    spent, result = 0.0, []
    for look in looks:
        level = total * look / looks[-1] - spent
        reached = level / hypotheses >= 2.0**-look
        result.append(level if reached else 0.0)
        spent += result[-1]
    return tuple(result)


def alphas(rules: Rules, methods: int) -> tuple[float, ...]:
    """Return each look's family-wise level for FAIL; a `UserError` where so few pairs can't judge so many methods."""
    per_look = levels(rules.alpha, rules.looks, methods)
    if not any(per_look):
        raise UserError(
            f"{methods} methods can't be judged at a false-alarm rate of {rules.alpha:.2%} with {rules.looks[-1]} "
            "pairs: ask for fewer methods, a higher rate or more pairs"
        )
    return per_look


def betas(rules: Rules) -> tuple[float, ...]:
    """Return each look's level for PASS, of one method.

    A check passes only where all methods do, so that none needs adjusting (Berger 1982).
    """
    return levels(rules.beta, rules.looks)


def looks_done(rules: Rules, pairs: int) -> int:
    """Return the number of looks that so many pairs allow."""
    return sum(look <= pairs for look in rules.looks)
