"""Answers of the methods to some test rows, those on which they disagree most first."""

import numpy as np

from hpml_bench.judge.results import Results
from hpml_bench.page.tables import section_of, table
from hpml_bench.plugins.blocks import Section
from hpml_bench.records.numbers import MISSING, number

order = 57
question = "best"
about = "where methods differ most"
ROWS = 8
LONGEST = 300  # characters of a text that are shown


def section(results: Results) -> Section | None:
    seed = next(iter(results.seeds), None)
    texts = {
        method: stored.texts
        for method in results.methods
        for record in results.runs(method)
        if record.spec.seed == seed and (stored := results.stored[record.run_id]).texts is not None
    }
    answered = {
        method: one for method, one in texts.items() if one is not None and one.answer is not None
    }
    if not answered:
        return None
    methods, first = list(answered), next(iter(answered.values()))
    means = {
        method: np.mean([*map(np.asarray, results.row_scores(method).values())], axis=0)
        for method in methods
    }
    scores = np.array([means[method] for method in methods], dtype=np.float64)  # [methods, rows]
    # rows by falling spread of the methods' scores; among equals in the rows' order
    spread = scores.max(axis=0) - scores.min(axis=0) + 1e-3 * scores.std(axis=0)
    rows = []
    for row in np.argsort(-spread, kind="stable")[:ROWS].tolist():
        cells = [str(row + 1), _cut(first.question[row]), _cut(first.expected[row])]
        for score, one in zip(scores[:, row], answered.values(), strict=True):
            shown = number(score, ".0f" if score in {0.0, 1.0} else ".2f")
            cells.append(
                f"{_cut(one.answer[row])} [{shown}]" if one.answer is not None else MISSING
            )
        rows.append(cells)
    notes = [
        f"The answers are of seed {seed}; in brackets stands the row's score, the mean over all "
        f"compared seeds. Shown are the {len(rows)} of {scores.shape[1]:,} test rows on which the "
        "methods' scores differ most, the first of equals. All answers are in each run's "
        "predictions.parquet."
    ]
    columns = ["Row", "Asked", "Expected", *methods]
    block = table("answers", "Answers to test rows, most disputed first", columns, rows, notes)
    return section_of("answers", "Answers", block)


def _cut(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
