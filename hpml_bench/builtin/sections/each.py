"""Method by method: scores by seed, costs, rate and options of each, and how it stands to each other method."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.sections import each_section
from hpml_bench.report.results import Results

order = 105
question = "methods"
about = "scores by seed, costs, options, and every other method"
folded = False


def section(results: Results) -> Section | None:
    """Return a fold per method, the best mean first; None without a compared run."""
    return each_section(answer_of(results))
