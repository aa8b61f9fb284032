"""Made-up blocks and reports of `hpml-bench check`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpml_bench.gate import verdicts
from hpml_bench.gate.records import Block, CheckReport, MethodCount, Rules, Side

METHODS = ("lora", "prompt_tuning", "adapter")
HOSTILE = (
    "<script>alert(1)</script>|`x`\x1b[31m%0A::error::pwned\n$$ & \"q\" 'a' ]]> \u202e "
    "[a](javascript:b) ${{ x }}"
)
"""A name that tries to be obeyed in HTML, Markdown, XML, a terminal, a workflow command and
mathematics.
"""


def block(
    ratio: float, pair: int = 0, method: str = "lora", order: Any = "ABBA", **changes: Any
) -> Block:
    """Return a block in which the candidate takes `ratio` times as long."""
    a, b = 0.4, 0.4 * ratio
    seconds = (a, b, b, a) if order == "ABBA" else (b, a, a, b)
    fields: dict[str, Any] = {
        "pair": pair,
        "method": method,
        "order": order,
        "steps": 20,
        "seconds": seconds,
        "steal": 0.0,
        "load": 0.1,
    }
    return Block(**fields | changes)


def blocks(
    slowdowns: Mapping[str, float], pairs: int = 12, sd: float = 0.005, seed: int = 0
) -> tuple[Block, ...]:
    """Return two blocks a pair and method, in both orders, with normal noise between pairs."""
    generator = np.random.default_rng(seed)
    found = []
    for pair in range(pairs):
        for method, slowdown in slowdowns.items():
            ratio = (1 + slowdown) * math.exp(sd * generator.standard_normal())
            found += [block(ratio, pair, method), block(ratio, pair, method, "BAAB")]
    return tuple(found)


def counts(method: str = "lora", grown: int = 0) -> tuple[MethodCount, ...]:
    grew = ("aten::item x 12",) if grown else ()
    return (
        MethodCount(
            method=method,
            name="host_syncs",
            title="Host synchronisations",
            unit="per step",
            reference=2,
            candidate=2 + grown,
            grew=grew,
        ),
        MethodCount(
            method=method,
            name="flops",
            title="FLOPs",
            unit="per step",
            reference=1.5e9,
            candidate=1.5e9,
        ),
    )


def report(
    slowdowns: Mapping[str, float] | None = None,
    grown: int = 0,
    label: str = "main",
    **changes: Any,
) -> CheckReport:
    slowdowns = dict.fromkeys(METHODS, 0.0) if slowdowns is None else slowdowns
    rules = Rules()
    measured = blocks(slowdowns)
    counted = tuple(
        count
        for index, method in enumerate(slowdowns)
        for count in counts(method, 0 if index else grown)
    )
    found = verdicts.verdicts_at(verdicts.pair_effects(measured), rules, 1) + tuple(
        map(verdicts.of_count, counted)
    )
    fields: dict[str, Any] = {
        "mode": "revision",
        "suite": "quickstart",
        "methods": tuple(slowdowns),
        "rules": rules,
        "reference": Side(
            label=label, revision="0123456789abcdef", python="3.11.9", versions={"torch": "2.13.0"}
        ),
        "candidate": Side(label="working tree", revision="fedcba9876543210", dirty=True),
        "environment": {"cpu": "a processor", "logical_cores": 2},
        "blocks": measured,
        "counts": counted,
        "verdicts": found,
        "pairs": 12,
        "notes": ("2 blocks were disturbed and repeated",),
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 321.0,
    }
    return CheckReport(**fields | changes)
