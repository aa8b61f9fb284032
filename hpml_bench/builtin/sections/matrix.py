"""Matrix of pairs: each method against each other, by score and by each tested cost."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.matrix import matrix_section
from hpml_bench.report.results import Results

order = 28
question = "sure"
about = "each method against each other"
folded = False


def section(results: Results) -> Section | None:
    """Return a table of differences per score and tested cost, one shown at a time; None where no pair was tested."""
    return matrix_section(answer_of(results))
