"""Sentences of verdicts, and the format of their numbers."""

from __future__ import annotations

import math

from hpml_bench.gate.records import MethodCount, Rules, Verdict
from hpml_bench.report.tables import MINUS, MISSING, number
from hpml_bench.system.text import sanitize


def percent(value: float | None, *, sign: bool = True) -> str:
    """Return a relative change as `+1.3 %`."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = number(abs(value) * 100, ".2f" if abs(value) < 0.1 else ".0f")
    if not text.strip("0."):
        return f"{text} %"
    before = MINUS if value < 0 else "+" if sign else ""
    return f"{before}{text} %"


def rate(value: float) -> str:
    """Return a set rate as `1 %`, `0.5 %`."""
    return f"{value * 100:.4g} %"


def interval(verdict: Verdict) -> str:
    """Return the bounds as `[−0.10 %, +0.42 %]`; a bound that so few values don't give is open."""
    if verdict.lower is None and verdict.upper is None:
        return MISSING
    low = f"{MINUS}∞" if verdict.lower is None else percent(verdict.lower)
    high = "∞" if verdict.upper is None else percent(verdict.upper)
    return f"[{low}, {high}]"


def of_step_time(verdict: Verdict, rules: Rules, unit: str = "pairs") -> str:
    """Return a sentence on the evidence for the step time's verdict."""
    seen = f"{verdict.pairs} {unit if verdict.pairs != 1 else unit.removesuffix('s')}"
    takes = f"a step takes {longer(verdict.estimate)} by {seen}"
    if verdict.status == "FAIL":
        return f"{takes}, at least {longer(verdict.lower)}; {rate(rules.null)} is let through"
    if verdict.status == "PASS":
        bound = "at least" if verdict.upper is not None and verdict.upper < 0 else "at most"
        return f"{takes}, {bound} {longer(verdict.upper)}; {rate(rules.target)} must not pass"
    if verdict.mde is None:
        return f"{takes}, which are too few to find a slowdown at these levels"
    return f"{takes}, bounds {interval(verdict)}; they would have found about {longer(verdict.mde)}"


def longer(value: float | None) -> str:
    """Return a relative change of a time as `1.30 % longer`."""
    if value is None:
        return "not known"
    return f"{percent(abs(value), sign=False)} {'shorter' if value < 0 else 'longer'}"


def of_count(count: MethodCount) -> str:
    """Return a sentence on how much a count grew or fell, and on the parts that grew."""
    title, unit = sanitize(count.title, 80), sanitize(count.unit, 40)
    now = f"{amount(count.candidate)} {unit}".strip()
    if count.candidate == count.reference:
        return f"{title}: {now}, as before"
    way = "from" if count.candidate > count.reference else "down from"
    sentence = f"{title}: {now}, {way} {amount(count.reference)}"
    if count.reference:
        sentence += f" ({percent(count.change)}"
        sentence += f", {rate(count.tolerance)} is allowed)" if count.tolerance else ")"
    if count.candidate > count.reference and count.grew:
        sentence += f"; what grew: {', '.join(grown(count))}"
    return sentence


def amount(value: float) -> str:
    """Return a count in full, a share to six digits."""
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.6g}"


def grown(count: MethodCount) -> list[str]:
    """Return the parts that made a count grow; operators as torch writes them in Python: `aten.item`."""
    return [sanitize(name, 80).replace("::", ".") for name in count.grew]
