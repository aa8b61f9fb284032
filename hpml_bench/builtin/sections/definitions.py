"""Definitions: the words of the page."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.report.answer import terms
from hpml_bench.report.answer.deciding import turns
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Quantity, section_of, table

order = 149
question = "reading"
about = "may be best, behind, can't tell, equal, adjusted p"


def section(results: Results) -> Section | None:
    """Return a row per word."""
    answer = answer_of(results)
    margin = f"{answer.score.margin:.3g} {answer.score.difference_unit}".strip()
    comparisons = terms.count_of(answer.tested, "comparison")
    rows = [
        ["Score", "The mean over seeds, on the test rows."],
        ["May be best", "No other method is shown to score better."],
        ["Behind", "The methods named are shown to score better."],
        [
            "Can't tell",
            "The difference could be chance. It doesn't mean equal, and it doesn't pass on: a may tie with b, and b "
            "with c, while a beats c.",
        ],
        [
            "Equal",
            f"The difference is shown to be under {margin} of score, or {100 * results.margin.cost:g} % of a cost.",
        ],
        ["At this budget", "Other budgets may order the methods otherwise, most of all those still improving."],
        ["p (adjusted)", f"p adjusted for the {comparisons} of this page. Below 5 % is a verdict."],
        [
            "Scores are tested",
            f"Within a seed and a test row, for {answer.judged}: two-way analysis of variance and paired t; the larger "
            f"p counts. {_largest(results)}".strip(),
        ],
        [
            "Costs are tested",
            "As factors within a seed (paired t of logarithms), for other seeds on the same hosts. "
            f"{turns(answer)}".strip(),
        ],
        [
            "A wrong verdict",
            f"At most {answer.chance:g} % of such pages hold one, under near-normal noise and a number of seeds fixed "
            "before.",
        ],
        ["Seeds to decide", "How many would tell with a chance of 80 %, were the difference as measured."],
    ]
    return section_of(
        "definitions", "Definitions", table("definitions", "Words of this page", ("Word", "Meaning"), rows)
    )


def _largest(results: Results) -> str:
    """Return the largest difference of a row that the suite declares, as a sentence; empty where it declares none."""
    if (largest := results.margin.largest_difference) is None:
        return ""
    shown = Quantity.of(results, results.quality).difference(largest)
    unused = f", isn't used: {results.not_largest}" if results.not_largest else ""
    return f"Largest difference of a row: {shown}, declared in the suite{unused}."
