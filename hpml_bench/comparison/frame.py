"""Verdicts as a frame, a row per pair of systems and data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hpml_bench.comparison.answer import Compared
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "dataset", "a", "b", "difference", "low", "high", "p", "p_adjusted", "verdict", "better", "scope", "need", "rows",
    "seeds",
)  # fmt: skip


def verdicts_of(
    frame: pd.DataFrame,
    *,
    score: str | None = None,
    margin: float | None = None,
    better: Literal["higher", "lower"] = "higher",
    bounds: tuple[float, float] | None = None,
    shared: bool = False,
) -> pd.DataFrame:
    """Return the verdicts on a frame's systems; see `hpml_bench.compare`."""
    import pandas as pd

    if better not in {"higher", "lower"}:
        raise UserError(f"better is '{better}'; choose higher or lower")
    found = assemble([of_frame(frame, score)], lower=better == "lower", bounds=bounds, shared=shared)
    rows = [row for one in found for row in _rows(Compared.of(one, margin))]
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    return made.astype({"need": "Int64", "rows": "Int64", "seeds": "Int64"})


def _rows(compared: Compared) -> Iterator[Sequence[Any]]:
    scores = compared.scores
    for c in compared.verdicts.score:
        shared = len(scores.means[c.a].keys() & scores.means[c.b].keys())
        yield (
            scores.dataset,
            c.a,
            c.b,
            c.difference.mean,
            c.difference.low,
            c.difference.high,
            c.p,
            c.p_adjusted,
            c.verdict,
            c.winner(scores.score.better),
            compared.verdicts.holds_for,
            compared.needed(c) if c.verdict == "undecided" else None,
            scores.count,
            shared,
        )
