"""Seeds or test rows that would decide the open pairs of scores."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.report.answer.deciding import deciding_section
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.results import Results

order = 29
question = "sure"
about = "seeds or test rows for the open pairs"
folded = False


def section(results: Results) -> Section | None:
    """Return what each open pair would take, and what the verdicts hold for; None with a single method."""
    return deciding_section(answer_of(results))
