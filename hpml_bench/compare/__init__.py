"""Verdicts for anybody's numbers: readers of files, the statistics of systems over rows and seeds, and their page.

`readers/` has a file for each kind of input, all of which give `Measured`; `scores.py` aligns them, `verdicts.py`
chooses the test, `answer.py` and `sections.py` make the page. May import `report` and what is before it; never torch.
The package can be called: `hpml_bench.compare(frame)` is the function `compare` here, which the package of that name
would hide.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd


def compare(
    frame: pd.DataFrame,
    *,
    score: str | None = None,
    margin: float | None = None,
    better: Literal["higher", "lower"] = "higher",
    bounds: tuple[float, float] | None = None,
    shared: bool = False,
) -> pd.DataFrame:
    """Return which systems can be told apart by their scores: a row per pair, and data set.

    All pairs of a data set are one family: at most 5 % of such calls hold a false verdict on it, by Holm (1979). What
    the frame has chooses the test. Three seeds or more that every two systems share, and rows: a two-way analysis of
    variance over seeds and rows, and the paired t test over seeds. Rows alone: McNemar's exact test (1947) where they
    are right or wrong, of one run each; else Student's t over differences of rows, or of groups linearised as a ratio
    (Cochran 1977, ch. 9A), with guards against rare rows (Rao 1948). No rows: means within `bounds`, unpaired, after
    Agresti and Caffo (2000). docs/methodology.md has formulas and simulated rates.

    Args:
        frame: a line per row and run with the columns `system`, `row`, `score`, and optionally `seed`, `group` (rows
            that depend on each other), `dataset`; or a line per run with `system`, `score`, `rows` (their number). Ids
            are text or numbers, scores finite numbers or booleans. All other numeric columns are costs of runs, which
            share the family where three seeds are shared, and are not returned.
        score: column of the score, if not `score`.
        margin: difference of scores that counts as none, in the score's unit; pairs may then be `equivalent`
            (Schuirmann 1987).
        better: which scores are better.
        bounds: least and largest score that a row can have; without it the range of the scores seen is taken.
        shared: compare the rows that all systems have, instead of refusing unequal rows.

    Returns:
        Columns `dataset`; `a`, `b` (systems); `difference` (mean score of a less that of b, in the score's unit) with
        its own 95 % interval `low`, `high`; `p` and, after Holm, `p_adjusted` (below 0.05 is a verdict); `verdict`
        (`different`, `equivalent`, `undecided`, `untested`); `better` (the better system, or None); `scope` (what the
        verdict holds for); `need` (of undecided pairs, seeds or rows that would decide with a chance of 80 % if the
        difference is as measured); `rows` and `seeds` (compared rows, shared seeds). NaN or NA where there is none.

    Raises:
        hpml_bench.errors.UserError: the frame can't be compared: one sentence that names the line.

    """
    from hpml_bench.compare.frame import verdicts_of

    return verdicts_of(frame, score=score, margin=margin, better=better, bounds=bounds, shared=shared)


class _Package(ModuleType):
    """This package, which can be called as its function `compare`."""

    def __call__(self, *args: Any, **options: Any) -> pd.DataFrame:
        return compare(*args, **options)


sys.modules[__name__].__class__ = _Package
