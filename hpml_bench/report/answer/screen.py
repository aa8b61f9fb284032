"""The first screen of a page: what its template shows of an answer, decided here."""

from __future__ import annotations

import json
import re

from hpml_bench.plugins.picture import Picture
from hpml_bench.report.answer import words
from hpml_bench.report.answer.facts import OF_SUITES, facts
from hpml_bench.report.answer.model import Method, PageSummary, Relation
from hpml_bench.report.numbers import MISSING, capitalized, sentence_list
from hpml_bench.report.pictures.layout import MANY, NARROW
from hpml_bench.report.pictures.screen import Bars, bars, pictures
from hpml_bench.report.pictures.svg import svg
from hpml_bench.report.questions import TITLES

BROKEN_FROM = 18
"""Characters from which a name may break after its underscores."""
ONE_COST = 760
"""Pixels of a screen up to which answer.css shows one cost."""
PLACES = frozenset(TITLES)
"""Anchors to which a first screen may link; a page without some of these parts names its own."""
LETTERS: dict[Relation, str] = {"better": "b", "worse": "w", "equal": "e", "open": "o", "untested": "u"}
"""Relations of a method to another, as the page's script reads them."""
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def context(answer: PageSummary) -> dict[str, object]:
    of = bars(answer, 84 if answer.numbered else 96)
    chips = {words.verdict(answer, name).chip for name in answer.top}
    return {
        "banner": words.banner(answer),
        "places": PLACES,
        "headline": words.headline(answer),
        "setup": words.setup_line(answer),
        "answer_facts": facts(answer),
        "noun": answer.noun,
        "names": [method.name for method in answer.methods],
        "many": len(answer.methods) > MANY,
        "numbered": answer.numbered,
        "pictures": [_picture(answer, drawn) for drawn in pictures(answer)],
        "blue": (chips.pop() if len(chips) == 1 else "may be best") if chips else "",  # what a blue mark means
        "score": {
            "title": capitalized(answer.score.title), "noun": answer.score.title, "unit": answer.score.unit,
            "sort": "down" if answer.score.better == "higher" else "up",
        },
        "axes": [(axis, "" if axis.own_units else axis.unit) for axis in answer.axes],
        "best": words.label(answer, answer.methods[0].name) if answer.methods else "",
        "gap_unit": answer.score.difference_unit,
        "bars": of,
        "bar_caption": _caption(answer),
        "rows": tuple(_row(answer, of, method) for method in answer.methods),
        "data": _data(answer).translate(_ESCAPED),
    }  # fmt: skip


def _data(answer: PageSummary) -> str:
    """Return what the page's script reads: report.json, with the pairs' relations in place of their numbers.

    `relations` has for the score and each cost a text per method, with a letter per method: how the one stands to the
    other. 45 methods have 3,000 pairs, which would be half of the page.
    """
    names = [method.name for method in answer.methods]
    relations = {
        by: ["".join(LETTERS[answer.relation(by, one, other)] for other in names) for one in names]
        for by in ("score", *(axis.key for axis in answer.axes))
    }
    content = answer.model_dump(mode="json", exclude={"pairs"}) | {"relations": relations}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def sheets(answer: PageSummary) -> list[str]:
    """Return the rules by which a page shows the chosen one of costs that answer.css doesn't know; none without one."""
    keys = [axis.key for axis in answer.axes if axis.key not in OF_SUITES]
    if not keys:
        return []
    pictures = ", ".join(f".pic:has(#x-{key}:checked) .p-{key}" for key in keys)
    columns = ", ".join(f"#best:has(#x-{key}:checked) .main .c-{key}" for key in keys)
    narrow = f"@media screen and (max-width: {ONE_COST}px) {{ {columns} {{ display: table-cell; }} }}"
    return [f"{pictures} {{ display: block; }}\n{narrow}\n"]


def _caption(answer: PageSummary) -> tuple[str, ...]:
    if len(answer.methods) < 2:
        return ()
    best = words.label(answer, answer.methods[0].name)
    if not answer.tested_by_score:
        return (f"Hollow dot: difference to {best}, not tested.",)
    drawn = any(pair.decided_low is not None for pair in answer.pairs["score"])
    shared = ("Differences are over the seeds that each pair shares.",) if answer.shared is not None else ()
    return (
        f"Bar: difference to {best}.",
        *(["Its interval is at the level of its test, and so wider than 95 %."] if drawn else []),
        "Hollow: not shown to differ.",
        *shared,
    )


def _picture(answer: PageSummary, drawn: Picture) -> dict[str, object]:
    """Return a picture in both widths, with its cost, and a sentence on the methods with a score that it lacks."""
    cost = answer.axis(drawn.x.key)
    lost = [method for method in answer.methods if "score" in method.values and cost and cost.id not in method.values]
    why = "not trained" if all(method.base for method in lost) else "not measured"
    named = (
        f"Not drawn: {sentence_list([words.label(answer, method.name) for method in lost])} ({why})." if lost else ""
    )
    return {"cost": cost, "drawn": drawn, "wide": svg(drawn), "narrow": svg(drawn, NARROW), "lost": named}


def _row(answer: PageSummary, of: Bars, method: Method) -> dict[str, object]:
    """Return a method's row; `pieces` are its name, cut where it may break."""
    name, score = method.name, answer.value(method.name, "score")
    shown = words.row_name(answer, name)
    costs = [(axis, answer.value(name, axis.id)) for axis in answer.axes]
    return {
        "at": answer.number[name], "name": name, "top": name in answer.top,
        "pieces": re.findall(r"[^_]*_+|[^_]+$", shown) if len(shown) >= BROKEN_FROM else (shown,),
        "score": MISSING if score is None else answer.score.text(score, unit=False), "value": score,
        "difference": of.value.get(name), "bar": of.svg.get(name, ""), "said": of.said.get(name, ""),
        "costs": [(axis.key, MISSING if v is None else axis.text(v, unit=False), v) for axis, v in costs],
        "verdict": words.verdict(answer, name),
    }  # fmt: skip
