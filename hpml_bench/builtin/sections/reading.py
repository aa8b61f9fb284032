"""Guide to reading the page: the words of its verdicts, and a glossary of every metric."""

from collections.abc import Iterator

from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summarize import lent_in_words
from hpml_bench.page.answer.sections import turns
from hpml_bench.page.tables import quantity_of, section_of, table
from hpml_bench.plugins.blocks import Section
from hpml_bench.records.numbers import capitalized, sentence_list, with_unit
from hpml_bench.system.text import count_of

order = 149
MOST_HOSTS = 8  # number of hosts that are named


def sections(results: Results) -> Iterator[Section | None]:
    words = table("definitions", "Words of this page", ("Word", "Meaning"), _words(results))
    about = "may be best, behind, can't tell, equal, adjusted p"
    yield section_of("definitions", "Definitions", words, question="reading", about=about)
    rows = [
        [
            capitalized(m.title),
            m.name,
            m.unit or "1",
            m.better,
            m.phase,
            f"{m.over_ranks} / {m.over_steps}",
            m.definition,
        ]
        for m in results.definitions.values()
    ]
    columns = ("Metric", "Name", "Unit", "Better", "Phase", "Over ranks / steps", "Definition")
    about = "every metric, as its probe defines it"
    glossary = table("glossary", capitalized(about), columns, rows)
    yield section_of("glossary", "Glossary", glossary, question="reading", about=about)


def _words(results: Results) -> Iterator[tuple[str, str]]:
    answer = answer_of(results)
    comparisons = count_of(answer.tested, "comparison")
    unit = "test row" if results.aligned.groups is None else "group of test rows"
    yield "Score", "The mean over seeds, on the test rows."
    yield "May be best", "No other method is shown to score better."
    yield "Behind", "The methods named are shown to score better."
    chance = "The difference could be chance. It doesn't mean equal, and it doesn't pass on"
    yield "Can't tell", f"{chance}: a may tie with b, and b with c, while a beats c."
    under = f"{answer.margin_text} of score, or {100 * results.margin.cost:g} % of a cost"
    yield "Equal", f"The difference is shown to be under {under}."
    yield (
        "At this budget",
        "Other budgets may order the methods otherwise, most of all those still improving.",
    )
    yield "p (adjusted)", f"p adjusted for the {comparisons} of this page. Below 5 % is a verdict."
    tests = "two-way analysis of variance and paired t; the larger p counts."
    within = f"Within a seed and a {unit}, for {answer.judged}: {tests}"
    if (largest := results.margin.largest_difference) is not None:
        unused = f", isn't used: {results.not_largest}" if results.not_largest else ""
        score = quantity_of(results, results.quality)
        amount = f"{largest * score.scale:g}"
        shown = with_unit(
            amount, ("point" if amount == "1" else "points") if score.unit == "%" else score.unit
        )
        within += f" Largest difference of a row: {shown}, declared in the suite{unused}."
    yield "Scores are tested", within + lent_in_words(results.verdicts)
    factors = "As factors within a seed (paired t of logarithms), for other seeds"
    where = "this machine (taken as one: not every record names its host)"
    if results.hosts:
        more = [f"{len(results.hosts) - MOST_HOSTS} more"] if results.hosts[MOST_HOSTS:] else []
        share = ", where the runs of a seed share theirs" if results.hosts[1:] else ""
        where = f"{sentence_list([*results.hosts[:MOST_HOSTS], *more])}{share}"
    yield "Costs are tested", f"{factors} on {where}. {turns(answer)}".strip()
    before = "looks declared" if answer.rounds else "a number of seeds fixed"
    wrong = (
        f"At most {answer.chance:g} % of such pages hold one, under near-normal noise and "
        f"{before} before."
    )
    yield "A wrong verdict", wrong
    yield (
        "Seeds to decide",
        "How many would tell with a chance of 80 %, were the difference as measured.",
    )
