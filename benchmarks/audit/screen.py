"""Tables of the first screen and of what stands on it: answer, costs, matrix of pairs, definitions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from audit.answer import answer_of
from audit.page import Table
from audit.study import TIME, Study
from audit.values import Cell, Json
from audit.words import Cells, Row

ADDED = "peak_memory_over_setup_mb"
BESIDE = {
    "Samples a second": "samples_per_second", "One answer (ms)": "latency_ms_p50",
    "Weights trained (%)": "trainable_percent",
}  # fmt: skip


@lru_cache(maxsize=4)
def screen(study: Study) -> Json:
    """Return a study's answer, computed once."""
    return answer_of(study)


def stands(answer: Json, one: str, other: str) -> str:
    """Return how a method stands to another by score."""
    pair = next((p for p in answer["pairs"]["score"] if {p["a"], p["b"]} == {one, other}), None)
    if pair is None or pair["v"] == "untested":
        return "untested"
    if pair["w"]:
        return "better" if pair["w"] == one else "worse"
    return "equal" if pair["v"] == "equivalent" else "open"


def seen(answer: Json, metric: str, one: str, other: str) -> list[float | None] | None:
    """Return difference (of costs: factor) and interval that decides of one method against another."""
    for pair in answer["pairs"].get(metric, ()):
        if {pair["a"], pair["b"]} == {one, other}:
            values = [pair["d"], pair["wlo"], pair["whi"]]
            if pair["a"] == one:
                return values
            turned = [None if x is None else (-x if metric == "score" else 1 / x) for x in values]
            return [turned[0], turned[2], turned[1]]
    return None


def answered_first(study: Study, table: Table, row: Row) -> Cells:
    """A row of the answer of a study."""
    return answer_cells(screen(study), table.header, row["method"])


def answer_cells(answer: Json, head: list[str], name: str) -> Cells:
    """A row of an answer: score, difference to the best mean, verdict, methods from which it is not told, costs."""
    names = [method["name"] for method in answer["methods"]]
    relations = {other: stands(answer, name, other) for other in names if other != name}
    difference = seen(answer, "score", name, names[0]) if name != names[0] else None
    behind = [other for other, how in relations.items() if how == "worse"]
    open_ = [other for other, how in relations.items() if how == "open"]
    verdict = chip(answer, name) or (f"behind {', '.join(behind)}" if behind else "")
    values = next(method["v"] for method in answer["methods"] if method["name"] == name)
    cells: Cells = dict(zip(head[2:5], difference or [None] * 3, strict=True))
    cells |= {head[1]: values["score"]["m"], "verdict": verdict, "can't tell from": ", ".join(open_)}
    costs = [values.get(axis["id"], {}).get("m") for axis in answer["axes"]]
    return cells | dict(zip(head[7:], costs, strict=True))


def chip(answer: Json, name: str) -> str:
    """Return the badge of a method that none is shown to beat."""
    names = [method["name"] for method in answer["methods"]]
    tested = [one for one in names if any(stands(answer, one, o) != "untested" for o in names if o != one)]
    top = [one for one in tested if all(stands(answer, one, other) != "worse" for other in names if other != one)]
    if name not in top:
        return ""
    bases = [method["name"] for method in answer["methods"] if method["base"]]
    unproven = any(base == name or stands(answer, name, base) != "better" for base in bases)
    if unproven or (answer["guess"] and name in answer["guess"]["below"]):
        return "may be best"
    won = len(top) == 1 and all(stands(answer, name, other) == "better" for other in tested if other != name)
    return "best" if won and len(tested) == len(names) else "may be best"


def cost_cells(study: Study, table: Table, row: Row) -> Cells:
    """A row of the one table of costs."""
    answer, name = screen(study), row["Method"]
    values = next(method["v"] for method in answer["methods"] if method["name"] == name)
    cells: Cells = {}
    for header in table.header[1:]:
        axis = next((a for a in answer["axes"] if header.startswith(a["title"])), None)
        if axis:
            cells[header] = values.get(axis["id"], {}).get("m")
        elif header.startswith("Of it by training"):
            cells[header] = values.get(ADDED, {}).get("m")
        elif header.startswith("Times as long as "):
            found = seen(answer, TIME, name, fastest(answer))
            cells[header] = found[0] if found else 1.0 if name == fastest(answer) else None
        elif header in BESIDE:
            own = study.values(BESIDE[header])[name]
            cells[header] = float(np.mean(own)) if own else None
    return cells


def fastest(answer: Json) -> str:
    """Return the method that is shown to train faster than each other one."""
    pairs = answer["pairs"].get(TIME, ())
    names = {name for pair in pairs for name in (pair["a"], pair["b"])}
    return next(str(one) for one in names if sum(pair["w"] == one for pair in pairs) == len(names) - 1)


def matrix_cells(study: Study, table: Table, row: Row) -> Cells:
    """A row of the matrix: the method against each other one."""
    answer, metric = screen(study), table.name.removeprefix("matrix_")
    names = [method["name"] for method in answer["methods"]]
    own = next(name for n, name in enumerate(names, 1) if row["Method"] in {name, f"{n} {name}"})
    cells: Cells = {}
    for header in table.header[1:]:
        other = next(name for n, name in enumerate(names, 1) if header in {name, str(n)})
        found = seen(answer, metric, own, other)
        cells[header] = found[0] if found else None
    return cells


def matrix_rows(study: Study, table: Table) -> list[str]:
    """Return the first cells of the matrix: the methods that were compared, by number where the heads have numbers."""
    answer, metric = screen(study), table.name.removeprefix("matrix_")
    compared = {name for pair in answer["pairs"].get(metric, ()) for name in (pair["a"], pair["b"])}
    named = [(n, method["name"]) for n, method in enumerate(answer["methods"], 1) if method["name"] in compared]
    numbered = "1" in table.header
    return [f"{n} {name}" if numbered else name for n, name in named]


def screen_rows(study: Study, _: Table) -> list[str]:
    """Return the methods of the answer."""
    return [method["name"] for method in screen(study)["methods"]]


def words_of(study: Study, _: Table, row: Row) -> Cells:
    """A word's meaning, where it holds figures."""
    answer = screen(study)
    score = answer["score"]
    margin = f"{score['margin']:.3g} {score['difference_unit']}".strip()
    count = f"{answer['tested']:,} comparison{'' if answer['tested'] == 1 else 's'}"
    tests = f"Within a seed and a test row, for {answer['judged']}: two-way analysis of variance and paired t; the "
    tests += "larger p counts."
    largest, why = study.largest
    if largest is not None:
        shown = f"{study.scale(study.score) * largest:g} {score['difference_unit']}".strip()
        unused = f", isn't used: {why}" if why else ""
        tests += f" Largest difference of a row: {shown}, declared in the suite{unused}."
    meanings: dict[str, Cell] = {
        "Scores are tested": tests,
        "Equal": f"The difference is shown to be under {margin} of score, or {100 * study.margin(TIME):g} % of a cost.",
        "p (adjusted)": f"p adjusted for the {count} of this page. Below 5 % is a verdict.",
        "A wrong verdict": f"At most {answer['chance']:g} % of such pages hold one, under near-normal noise and a "
        "number of seeds fixed before.",
        "Seeds to decide": "How many would tell with a chance of 80 %, were the difference as measured.",
    }
    return {"Meaning": meanings[row["Word"]]} if row["Word"] in meanings else {}
