"""Sections without their charts, which take most of a page's time: the values they are drawn from stand instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from hpml_bench.plugins.blocks import Figure
from hpml_bench.report import figures
from hpml_bench.report.results import Results


@contextmanager
def without_charts() -> Iterator[None]:
    """Replace the functions that draw."""
    with ExitStack() as stack:
        for name in ("strip", "bars", "line_chart", "trade_off"):
            stack.enter_context(patch.object(figures, name, _chart))
        yield


def _chart(results: Results, *asked: Any) -> Figure:
    wanted = [list(of) if isinstance(of, dict) else [of] for of in asked]
    named = [name for of in wanted for name in of if isinstance(name, str)]
    names = [name for name in named if name in results.definitions or name in results.curves]
    drawn = {name: (results.values(name), results.curves.get(name)) for name in names}
    return Figure(name="chart", caption="", svg="", alt=str((asked, drawn)))
