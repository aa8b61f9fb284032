"""A page with what the scripts of the first screen work on, made from an answer alone; and Chromium to look at it."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

from hpml_bench.suite.suite import packaged

TEMPLATES = packaged("templates", "templates")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _picture(answer: dict[str, Any], axis: dict[str, Any]) -> str:
    """Return marks in a frame of 100 x 100 whose scales reach from 0 to twice the largest value."""
    methods = [m for m in answer["methods"] if axis["id"] in m["v"] and "score" in m["v"]]
    x1, y1 = (2 * max((m["v"][key]["m"] for m in methods), default=1) or 1 for key in (axis["id"], "score"))
    up = 1 if answer["score"]["better"] == "higher" else -1
    marks = []
    for number, m in enumerate(answer["methods"], 1):
        if m in methods:
            x, y = 100 * m["v"][axis["id"]]["m"] / x1, 100 * m["v"]["score"]["m"] / y1
            marks.append(
                f'<a class="pt" href="#m-{number}" data-m="{number}" aria-label="{escape(m["name"])}">'
                f'<circle class="dot" cx="{x}" cy="{100 - y if up > 0 else y}" r="3"/></a>'
            )
    return (
        f'<div class="p p-{axis["key"]}"><svg class="plot" viewBox="0 0 100 100" data-axis="{axis["key"]}" '
        f'data-s="0 0 {x1} 0 100 0 {y1} 0 100 {up}"><g class="limits"></g>{"".join(marks)}</svg></div>'
    )


def _row(answer: dict[str, Any], number: int, method: dict[str, Any]) -> str:
    def cell(key: str, metric: str) -> str:
        value = method["v"].get(metric, {}).get("m", "")
        return f'<td class="num {key}" data-v="{value}">{value}</td>'

    return (
        f'<tr id="row-{number}" data-m="{number}"><th scope="row" data-v="{escape(method["name"])}">'
        f'<a class="nm" href="#m-{number}">{escape(method["name"])}</a></th>{cell("sc", "score")}'
        f"{''.join(cell('c-' + axis['key'], axis['id']) for axis in answer['axes'])}"
        f'<td class="ch"><span class="outs"></span><span class="chip best">may be best</span></td></tr>'
    )


def _letters(answer: dict[str, Any], by: str) -> list[str]:
    """Return the letters of each method's relations to each: b, w, e, o or u, from the pairs or an exact cost."""
    names = [m["name"] for m in answer["methods"]]
    axis = next((axis for axis in answer["axes"] if axis["key"] == by), {"exact": False, "tested": by})
    if axis["exact"]:
        mean = {m["name"]: m["v"][axis["id"]]["m"] for m in answer["methods"] if axis["id"] in m["v"]}
        return [
            "".join(
                "u" if not {p, q} <= mean.keys() else "b" if mean[p] < mean[q] else "w" if mean[p] > mean[q] else "e"
                for q in names
            )
            for p in names
        ]
    pairs = {frozenset((pair["a"], pair["b"])): pair for pair in answer["pairs"].get(axis["tested"], ())}

    def letter(one: str, other: str) -> str:
        pair = pairs.get(frozenset((one, other)))
        if pair is None or pair["v"] == "untested":
            return "u"
        return ("b" if pair["w"] == one else "w") if pair["w"] else "e" if pair["v"] == "equivalent" else "o"

    return ["".join(letter(one, other) for other in names) for one in names]


def page(answer: dict[str, Any], more: str = "", style: str = "", script: str = "") -> str:
    """Return the page under the policy of reports; `more` ends its body, `script` runs after the page's own."""
    styles = style + (TEMPLATES / "chooser.css").read_text(encoding="utf-8")
    scripts = [(TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in ("report", "answer")]
    scripts += [script] if script else []
    policy = f"default-src 'none'; style-src {_hash(styles)}; script-src {' '.join(map(_hash, scripts))}"
    axes = answer["axes"]
    choice = "".join(
        f'<input type="radio" name="x" id="x-{axis["key"]}" value="{axis["key"]}"{"" if at else " checked"}>'
        f'<label for="x-{axis["key"]}">{axis["title"]}</label>'
        for at, axis in enumerate(axes)
    )
    first = "down" if answer["score"]["better"] == "higher" else "up"
    heads = "".join(f'<th scope="col" class="num" data-sort="up">{axis["title"]}</th>' for axis in axes)
    rows = "".join(_row(answer, number, method) for number, method in enumerate(answer["methods"], 1))
    folds = "".join(
        f'<details class="fold one"><summary>{escape(m["name"])}</summary><div class="in" id="m-{number}">about</div>'
        "</details>"
        for number, m in enumerate(answer["methods"], 1)
    )
    relations = {by: _letters(answer, by) for by in ("score", *(axis["key"] for axis in axes))}
    data = json.dumps(answer | {"relations": relations}).replace("<", r"\u003c")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>page</title><style>{styles}</style></head>
<body><main class="w"><section id="best"><div class="first{" many" if len(answer["methods"]) > 7 else ""}">
<div class="pic"><div class="seg">{choice}</div>{"".join(_picture(answer, axis) for axis in axes)}</div>
<div class="tab-wrap"><table class="main"><thead><tr><th scope="col" data-sort="text">Method</th>
<th scope="col" class="num sc" data-sort="{first}">{escape(answer["score"]["title"])}</th>{heads}
<th scope="col" class="ch">Verdict</th></tr></thead><tbody>{rows}</tbody></table></div><div id="chooser"></div></div>
</section><section id="cost"><h2>Cost</h2></section><details id="around"><summary>Methods</summary>{folds}</details>
</main>{more}<script type="application/json" id="data">{data}</script>
{"".join(f"<script>{text}</script>" for text in scripts)}</body></html>
"""
