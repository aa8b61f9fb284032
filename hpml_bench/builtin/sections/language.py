"""Language model: losses in other units, tokens that are right, and answers that were cut or nearly tied."""

from __future__ import annotations

import numpy as np

from hpml_bench.report.metric_groups import GroupSection
from hpml_bench.report.results import Results
from hpml_bench.report.tables import number

order = 56
question = "best"
about = "losses in other units, tokens right, answers cut"


def _notes(results: Results) -> list[str]:
    """Return a note on methods with answers cut before any scored part, as in reasoning, which score 0 for that."""
    shares = {method: _cut_and_empty(results, method) for method in results.methods}
    cut = [f"{method} {number(100 * share, '.1f')} %" for method, share in shares.items() if share]
    if not cut:
        return []
    return [
        "Share of the test rows whose answer was cut before anything that is scored, as in reasoning that doesn't end "
        f"within max_new_tokens, and counts as empty: {', '.join(cut)}. A larger max_new_tokens may score otherwise."
    ]


def _cut_and_empty(results: Results, method: str) -> float:
    """Return the share of a method's test rows with a cut and empty answer, the mean over seeds."""
    texts = [results.selection.stored[record.run_id].texts for record in results.runs(method)]
    shares = [
        np.mean([cut and not text.strip() for cut, text in zip(one.cut, one.answer, strict=True)])
        for one in texts
        if one is not None and one.answer is not None and one.cut is not None
    ]
    return float(np.mean(shares)) if shares else 0.0


section = GroupSection("language", "Language model", notes=_notes)
