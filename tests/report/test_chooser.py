"""The scripts of a report's first screen, in Chromium under its policy: limits, words, address, folds, sorting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers.answer_page import page
from helpers.browser import look, needs_browser
from helpers.made_tables import right_and_wrong
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.report.answer.summary import summarize
from hpml_bench.report.judge import judge

NB = "\u00a0"
SEEN = """
setTimeout(() => {
  const text = (of) => [...document.querySelectorAll(of)].map((node) => node.textContent.trim());
  const groups = {};
  for (const title of document.querySelectorAll(".groups dt")) groups[title.textContent] =
    [...title.nextElementSibling.children].map((node) => node.textContent);
  const [chips, rows, marks] = [{}, {}, {}];
  for (const row of document.querySelectorAll("table.main tbody tr")) {
    rows[row.dataset.m] = row.className;
    chips[row.dataset.m] = [...row.querySelectorAll(".outs .chip")].map((chip) => chip.textContent);
  }
  for (const mark of document.querySelectorAll(".p-memory .pt")) marks[mark.dataset.m] = mark.getAttribute("class");
  const boxes = {};
  for (const box of document.querySelectorAll(".limit input[type=number]")) boxes[box.id.slice(2)] = box.value;
  const made = document.createElement("pre");
  made.id = "seen";
  made.textContent = JSON.stringify({
    pick: text(".pick"), groups, near: text(".result .near li"), gone: text(".result .gone li"),
    loose: text(".result .loose li"), status: text("[role=status]"), chips, rows, marks, boxes, hash: location.hash,
    order: [...document.querySelectorAll("table.main tbody tr")].map((row) => Number(row.dataset.m)),
    sorted: [...document.querySelectorAll("[aria-sort]")].map((head) => head.ariaSort),
    x: document.querySelector("input[name=x]:checked").value,
    first: (document.querySelector("input[name=first]:checked") || {}).value,
    limits: [...document.querySelectorAll(".p-memory .limline")].map((line) => Number(line.getAttribute("x1"))),
    open: [...document.querySelectorAll("details[open]")].length,
    focus: document.activeElement.id || document.activeElement.className || document.activeElement.tagName,
    lit: [...document.querySelectorAll(".hot")].length, owned: window.owned || "",
    isolated: text(".result bdi"), column: text("#more tbody td"), buttons: text(".matrix button"),
    tip: text("#tip:not([hidden])"), images: document.images.length,
  });
  document.body.append(made);
}, 1500);
"""

Made = dict[str, Any]
Look = Callable[..., Made]


def made(scores: dict[str, list[float]], better: str = "higher", **costs: dict[str, list[float]]) -> Made:
    """Return an answer of methods with runs by seed; pairs differ where no run of one reaches the other's."""
    axes = [
        {"key": "time", "id": "train_seconds", "title": "Training time", "unit": "s", "tested": "train_seconds"},
        {"key": "memory", "id": "peak_mb", "title": "Peak memory", "unit": "MB", "tested": "added_mb"},
        {"key": "size", "id": "saved_bytes", "title": "Saved size", "unit": "MB", "tested": None, "exact": True},
    ]
    axes = [{"exact": False} | axis for axis in axes if axis["id"] in costs]
    values = {"score": scores} | costs
    mean = {name: sum(runs) / len(runs) for name, runs in scores.items()}
    names = sorted(scores, key=lambda name: mean[name], reverse=better == "higher")

    def pair(metric: str, a: str, b: str) -> Made:
        p, q = values[metric][a], values[metric][b]
        winner = None
        if max(p) < min(q) or max(q) < min(p):
            low = a if max(p) < min(q) else b
            winner = low if metric != "score" or better == "lower" else b if low == a else a
        verdict = "untested" if len(p) < 3 else "different" if winner else "undecided"
        winner = winner if len(p) >= 3 else None
        nothing = dict.fromkeys(("lo", "hi", "wlo", "whi", "p", "ph", "need"))
        return {"a": a, "b": b, "v": verdict, "w": winner, "d": 0.0, "n": len(p), "skew": False} | nothing

    def value(runs: list[float]) -> Made:
        return {"m": sum(runs) / len(runs), "lo": None, "hi": None, "runs": runs}

    tested = ["score", *(axis["tested"] for axis in axes if axis["tested"] in values)]
    return {
        "v": 1, "seeds": len(next(iter(scores.values()))), "unranked": None, "guess": None, "axes": axes,
        "failures": [], "shared": None, "over": "seed", "noun": "method", "untested": None,
        "score": {
            "id": "test_accuracy", "title": "accuracy" if better == "higher" else "RMSE",
            "unit": "%" if better == "higher" else "", "better": better, "digits": 1 if better == "higher" else 2,
            "difference_unit": "points" if better == "higher" else "", "margin": 1.0,
        },
        "methods": [
            {"name": name, "kind": name, "base": False,
             "v": {metric: value(of[name]) for metric, of in values.items() if name in of}}
            for name in names
        ],
        "pairs": {
            metric: [pair(metric, a, b) for a, b in combinations(names, 2) if {a, b} <= set(values[metric])]
            for metric in tested
        },
    }  # fmt: skip


def four() -> Made:
    """Return lora and full, which can't be told apart, adapter, and head, which is cheapest."""
    return made(
        {"full": [80, 79, 81], "lora": [79, 80, 79], "adapter": [76, 75, 75], "head": [70, 71, 70]},
        train_seconds={"full": [9, 9, 9.3], "lora": [6, 6, 6.3], "adapter": [4, 5, 6], "head": [1, 1, 1.3]},
        peak_mb={"full": [900, 900, 909], "lora": [640, 650, 660], "adapter": [600, 600, 600], "head": [500, 500, 500]},
        added_mb={"full": [400, 400, 400], "lora": [90, 90, 90], "adapter": [95, 95, 95], "head": [10, 10, 10]},
        saved_bytes={"full": [5, 5, 5], "lora": [0.3, 0.3, 0.3], "adapter": [0.1, 0.1, 0.1], "head": [0.1, 0.1, 0.1]},
    )  # fmt: skip


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Look]:
    """Return what opens a page of an answer at a fragment, does something there, and says what it shows then."""

    def look_at(answer: Made, fragment: str = "", act: str = "", more: str = "") -> Made:
        path = tmp_path / "page.html"
        path.write_text(page(answer, more, script=f"{act}\n{SEEN}"), encoding="utf-8")
        document, console = look(path, tmp_path / "profile", fragment)
        assert console == []
        found = re.search('<pre id="seen">(.*?)</pre>', document, re.DOTALL)
        assert found, document[:2000]
        shown: Made = json.loads(unescape(found[1]))
        lines = [*shown["pick"], *shown["near"], *shown["loose"]]
        for sentence in (part for line in lines for part in re.split(r"(?<=[.?]) ", line)):
            assert len(sentence.split()) <= 20, sentence
        return shown

    return look_at


@needs_browser
def test_without_limits_the_best_stand_as_a_group(seen: Look) -> None:
    """Ties are a group, the others follow by mean, and the address stays empty."""
    shown = seen(four())
    assert shown["pick"] == ["full or lora may have the highest accuracy. These runs can't tell which."]
    assert shown["groups"] == {
        "May be best": [f"full 80.0{NB}%", f"lora 79.3{NB}%"],
        "Then by mean": [f"adapter 75.3{NB}%", f"head 70.3{NB}%"],
    }
    assert (shown["hash"], shown["gone"], shown["near"], shown["status"]) == ("", [], [], [""])


@needs_browser
def test_a_limit_excludes_two_and_says_by_which(seen: Look) -> None:
    """Beyond the limit by mean: row, mark and list say so; the picture shows the line; the best of the rest leads."""
    shown = seen(four(), "#?memory=620")
    assert shown["pick"] == [f"Within your limits in every run: adapter has the highest accuracy: 75.3{NB}%."]
    assert shown["gone"] == [f"Memory over 620{NB}MB: full 903{NB}MB, lora 650{NB}MB."]
    assert shown["chips"] == {"1": ["beyond limit: memory"], "2": ["beyond limit: memory"], "3": [], "4": []}
    assert shown["rows"] == {"1": "out", "2": "out", "3": "", "4": ""}
    assert shown["marks"] == {"1": "pt out", "2": "pt out", "3": "pt", "4": "pt"}
    assert shown["limits"] == [pytest.approx(100 * 620 / 1806)]
    assert (shown["x"], shown["boxes"]["memory"]) == ("memory", "620")


@needs_browser
def test_limits_hold_for_the_runs_that_there_are(seen: Look) -> None:
    """Where runs failed, or lie outside the shared seeds, "every run" would say too much; suites are named as such."""
    failed = {"failures": [{"method": "lora", "seed": 3, "status": "failed"}]}
    for more, runs in (
        (failed, "run that ended well"),
        (failed | {"shared": 3}, "run of the shared seeds"),
        ({"over": "suite"}, "suite"),
    ):
        pick = seen(four() | more, "#?memory=620")["pick"]
        assert pick == [f"Within your limits in every {runs}: adapter has the highest accuracy: 75.3{NB}%."]


@needs_browser
def test_a_close_method_is_named_and_not_recommended(seen: Look) -> None:
    """Its mean is within, a run is not: it says in how many and by how much, and never leads."""
    shown = seen(four(), "#?memory=655")
    assert shown["pick"] == [f"Within your limits in every run: adapter has the highest accuracy: 75.3{NB}%."]
    assert shown["near"] == [f"Close: lora averages 650{NB}MB. 1 of 3 runs is over 655{NB}MB, by up to 5.0{NB}MB."]
    assert shown["chips"]["2"] == [f"close: 1 of 3 runs over memory limit, by up to 5.0{NB}MB"]
    assert (shown["rows"]["2"], shown["marks"]["2"]) == ("near", "pt near")
    assert not any("lora" in item for items in shown["groups"].values() for item in items)


@needs_browser
def test_a_mean_is_shown_on_its_side_of_the_limit(seen: Look) -> None:
    """903.3 MB would round to the limit, or to within it: digits are added until the number says where it is."""
    answer = four()
    answer["methods"][0]["v"]["peak_mb"] = {"m": 903.3, "lo": None, "hi": None, "runs": [900.0, 900.0, 909.9]}
    for limit in ("903", "903.2"):
        assert seen(answer, f"#?memory={limit}")["gone"] == [f"Memory over {limit}{NB}MB: full 903.3{NB}MB."]
    shown = seen(answer, "#?memory=904")
    assert shown["near"] == [f"Close: full averages 903{NB}MB. 1 of 3 runs is over 904{NB}MB, by up to 5.9{NB}MB."]


@needs_browser
def test_none_left_says_which_limit_to_loosen(seen: Look) -> None:
    """Per limit that alone keeps all out: the least change that lets a method fit in every run."""
    shown = seen(four(), "#?time=2&score=74")
    assert shown["pick"] == ["Nothing fits your limits."]
    assert shown["loose"] == [
        f"Raise the time limit to 6{NB}s: adapter fits.",
        f"Lower the accuracy limit to 70{NB}%: head fits.",
    ]
    assert seen(four(), "#?time=6&score=74")["pick"] != shown["pick"]
    both = seen(four(), "#?time=0.5&memory=100")
    assert both["loose"] == ["No limit alone is the reason: loosen two or more."]
    assert seen(four(), "#?score=79.1")["pick"] == ["Nothing stays within your limits in every run."]


@needs_browser
def test_of_a_score_where_lower_is_better_the_limit_is_an_upper_one(seen: Look) -> None:
    """RMSE over the limit excludes, and the loosened limit is higher."""
    answer = made({"full": [0.3, 0.31, 0.3], "lora": [0.4, 0.41, 0.4], "head": [0.6, 0.61, 0.6]}, "lower")
    shown = seen(answer | {"axes": four()["axes"][:1]}, "#?score=0.5")
    assert shown["pick"] == ["Within your limits in every run: full has the lowest RMSE: 0.30."]
    assert shown["gone"] == ["RMSE over 0.5: head 0.60."]
    shown = seen(answer | {"axes": four()["axes"][:1]}, "#?score=0.2")
    assert shown["loose"] == ["Raise the RMSE limit to 0.31: full fits."]


@needs_browser
def test_memory_ranks_by_what_training_adds_and_limits_by_the_peak(seen: Look) -> None:
    """Lora adds less than adapter at a higher peak: it ranks before it, and a limit of the peak excludes it first."""
    shown = seen(four(), "#?first=memory&score=74")
    assert shown["pick"] == [
        f"Within your limits in every run: lora adds least memory in training: 90.0{NB}MB of its 650{NB}MB peak."
    ]
    assert f"adapter 95.0{NB}MB of its 600{NB}MB peak" in shown["groups"]["Then by mean"]
    assert "adapter" in seen(four(), "#?first=memory&score=74&memory=620")["pick"][0]


@needs_browser
def test_sizes_are_exact(seen: Look) -> None:
    """Equal files are equal, not undecided; a larger one is larger without a test."""
    shown = seen(four(), "#?first=size")
    assert shown["pick"] == [f"adapter and head save the smallest file: 100{NB}kB."]
    assert shown["groups"]["Then by mean"] == [f"lora 300{NB}kB", f"full 5.00{NB}MB"]


@needs_browser
def test_who_can_not_be_told_apart_does_not_pass_on(seen: Look) -> None:
    """A ties with b and b with c while a beats c: c says that it can't be told from b, and not from a."""
    answer = made({"a": [80, 82, 84], "b": [77, 79, 81], "c": [74, 76, 78], "d": [60, 60, 60]})
    shown = seen(answer | {"axes": four()["axes"][:1]})
    assert shown["groups"]["May be best"] == [f"a 82.0{NB}%", f"b 79.0{NB}%"]
    assert shown["groups"]["Then by mean"] == [f"c 76.0{NB}%, can't tell from b", f"d 60.0{NB}%"]


@needs_browser
def test_a_leader_that_is_not_shown_to_beat_each_may_be_best(seen: Look) -> None:
    """B is beaten, by c, which a beats; a and b are open: a is not called the best."""
    answer = made({"a": [80, 82, 84], "b": [70, 79, 81], "c": [74, 76, 78]}) | {"axes": four()["axes"][:1]}
    for pair in answer["pairs"]["score"]:
        if {pair["a"], pair["b"]} == {"b", "c"}:
            pair |= {"v": "different", "w": "c"}
    shown = seen(answer)
    assert shown["pick"] == [f"a may have the highest accuracy: 82.0{NB}%. It can't be told from b."]


@needs_browser
def test_what_is_not_tested_ranks_nothing(seen: Look) -> None:
    """Of one seed, and of costs of runs with neighbours: values stand by mean, limits hold, and nobody is best."""
    one = four()
    one = made(*[{m["name"]: m["v"]["score"]["runs"][:1] for m in one["methods"]}]) | {"axes": one["axes"][:1]}
    shown = seen(one, "#?score=74")
    assert shown["pick"] == [
        "Within your limits in one run each: full, lora and adapter. One seed can't rank methods: run 3 or more."
    ]
    assert list(shown["groups"]) == ["By mean, not tested"]
    unranked = four() | {"unranked": "runs had neighbours on their host"}
    for axis in unranked["axes"][:2]:
        axis["tested"] = None
    shown = seen(unranked, "#?first=time&memory=620")
    assert shown["pick"][0].startswith("Within your limits in every run: head and adapter. Costs rank nothing here: ")
    assert "neighbours" in shown["pick"][0]
    assert list(shown["groups"]) == ["By mean, not tested"]
    assert seen(unranked, "#?first=size")["pick"][0].startswith("adapter and head save the smallest file")


@needs_browser
def test_a_base_model_has_no_training_and_no_file(seen: Look) -> None:
    """It passes limits of costs, is not ranked by them, and whoever isn't shown to beat it only may be best."""
    answer = four()
    base = answer["methods"][1]
    base |= {"base": True, "v": {key: base["v"][key] for key in ("score", "saved_bytes")}}
    shown = seen(answer, "#?time=5&first=time")
    assert shown["groups"]["Not measured"] == ["the base model (not trained)"]
    assert shown["rows"]["2"] == ""
    shown = seen(answer)
    assert "May be best" in shown["groups"]
    assert shown["near"] == ["Not shown to beat the base model: full."]


@needs_browser
def test_a_method_without_the_cost_is_beyond_its_limit(seen: Look) -> None:
    """What wasn't measured can't be said to fit."""
    answer = four()
    del answer["methods"][0]["v"]["peak_mb"]
    shown = seen(answer, "#?memory=2000")
    assert shown["gone"] == ["Memory not measured: full."]
    assert shown["chips"]["1"] == ["not measured: memory"]


@needs_browser
def test_forty_five_methods_go_by_numbers(seen: Look) -> None:
    """Lists end where they would fill the screen, and say how many more there are."""
    scores = {f"method_{i}": [90.0 - 2 * i, 90.1 - 2 * i, 90.2 - 2 * i] for i in range(45)}
    times = {name: [float(i), i + 0.1, i + 0.2] for i, name in enumerate(scores, 1)}
    shown = seen(made(scores, train_seconds=times), "#?time=20.3&first=time")
    assert shown["pick"] == [f"Within your limits in every run: no.{NB}1 method_0 trains fastest: 1.10{NB}s."]
    assert len(shown["groups"]["Then by mean"]) == 7
    assert shown["groups"]["Then by mean"][-1] == "and 13 more"
    assert shown["gone"] == [f"Time over 20.3{NB}s: 25 methods, no.{NB}21–45."]


@needs_browser
def test_hostile_names_are_text(seen: Look) -> None:
    """No element, script or attribute arises of a name; one that runs right to left leaves the sentence's order."""
    names = ("<img src=x onerror=\"owned='1'\">", "\"'`${owned='1'}</script><b>", "\u05d0\u05d1\u05d2", "__proto__")
    runs = ([80.0, 80.5, 81.0], [70.0, 70.5, 71.0], [60.0, 60.5, 61.0], [50.0, 50.5, 51.0])
    scores = {name: list(of) for name, of in zip(names, runs, strict=True)}
    costs = {name: [5.0 - i, 5.1 - i, 5.2 - i] for i, name in enumerate(names)}
    act = "document.querySelector('.pt').focus();"
    shown = seen(made(scores, train_seconds=costs), "#?time=4.5&at=<img>&x=<b>&first=constructor", act)
    assert (shown["owned"], shown["images"]) == ("", 0)
    assert shown["gone"][0].startswith("Time over 4.5")
    assert names[2] in shown["isolated"]
    assert shown["tip"]
    assert shown["tip"][0].startswith("<img src=x")


@needs_browser
def test_the_address_restores_the_choice_and_leaves_out_what_it_does_not_know(seen: Look) -> None:
    """Each part is restored, and written as it was; numbers that aren't, and unknown names, are ignored."""
    address = "#?x=memory&memory=620&score=74&first=time&at=cost"
    shown = seen(four(), address)
    assert (shown["x"], shown["first"], shown["hash"]) == ("memory", "time", address)
    assert shown["boxes"] == {"time": "", "memory": "620", "size": "", "score": "74"}
    act = "const box = document.querySelector('#n-time'); box.value = '8'; box.dispatchEvent(new Event('input'));"
    assert seen(four(), address, act)["hash"] == "#?time=8&memory=620&score=74&first=time"
    odd = seen(four(), "#?x=speed&memory=12abc&time=-3&size=&score=Infinity&first=toString&at=nowhere&more=1")
    assert odd["boxes"] == {"time": "", "memory": "", "size": "", "score": ""}
    assert (odd["x"], odd["first"]) == ("time", "score")


@needs_browser
def test_a_change_is_spoken_once(seen: Look) -> None:
    """0.7 s after the last of some changes, the status says the result and how many fit."""
    act = """
const said = [], box = document.querySelector("#n-memory"), status = document.querySelector("[role=status]");
new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
for (const value of ["6", "62", "620"]) { box.value = value; box.dispatchEvent(new Event("input")); }
setTimeout(() => { status.textContent = `${said.length}: ${said[0]}`; }, 1400);
"""
    shown = seen(four(), "", act)
    assert shown["status"] == [
        f"1: Within your limits in every run: adapter has the highest accuracy: 75.3{NB}%. "
        "2 of 4 methods fit in every run."
    ]


@needs_browser
def test_limits_are_set_and_cleared_by_their_controls(seen: Look) -> None:
    """A slider at its end is no limit; the button clears all, and the boxes are empty again."""
    slide = "const r = document.querySelector('#r-score'); r.value = %s; r.dispatchEvent(new Event('input'));"
    shown = seen(four(), "", slide % 50)
    assert float(shown["boxes"]["score"]) == pytest.approx(75.5, abs=0.5)
    assert shown["hash"].startswith("#?score=75")
    shown = seen(four(), "#?score=75&memory=620", slide % 0)
    assert (shown["boxes"]["score"], shown["hash"]) == ("", "#?x=memory&memory=620")
    shown = seen(four(), "#?score=75&memory=620", "document.querySelector('.clear').click();")
    assert set(shown["boxes"].values()) == {""}
    assert shown["gone"] == []


@needs_browser
def test_marks_and_rows_light_up_together(seen: Look) -> None:
    """Focus on a mark lights its row and the method's other marks, and opens a tip that Escape closes."""
    act = "document.querySelector('.p-time .pt[data-m=\"1\"]').focus();"
    shown = seen(four(), "#?memory=620", act)
    assert shown["lit"] == 4
    assert f"Accuracy 80.0{NB}%" in shown["tip"][0]
    assert "Can't tell from lora." in shown["tip"][0]
    assert "Better than adapter and head." in shown["tip"][0]
    assert "beyond limit: memory" in shown["tip"][0]
    escape = "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }));"
    assert seen(four(), "", act + escape)["tip"] == []
    assert seen(four(), "", "document.querySelector('#row-2 .nm').focus();")["lit"] == 4


@needs_browser
def test_a_link_opens_its_fold_and_those_around_it(seen: Look) -> None:
    """And the address; Escape closes it and leads back to the link; limits stay in the address."""
    click = "document.querySelector('#row-3 .nm').click();"
    shown = seen(four(), "", click)
    assert (shown["open"], shown["hash"], shown["focus"]) == (2, "#m-3", "m-3")
    assert seen(four(), "#m-2")["open"] == 2
    shown = seen(four(), "#?memory=620", click)
    assert (shown["open"], shown["hash"], shown["focus"]) == (2, "#?x=memory&memory=620&at=m-3", "m-3")
    escape = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));"
    shown = seen(four(), "#?memory=620", click + escape)
    assert (shown["open"], shown["focus"]) == (1, "nm")


@needs_browser
def test_columns_sort_and_missing_values_stay_last(seen: Look) -> None:
    """The score's column is marked from the start; each click turns the order; what has no value never leads."""
    answer = four()
    del answer["methods"][0]["v"]["train_seconds"]
    assert seen(answer)["sorted"] == ["descending"]
    click = "document.querySelectorAll('table.main thead button')[2].click();"
    shown = seen(answer, "", click)
    assert (shown["order"], shown["sorted"]) == ([4, 3, 2, 1], ["ascending"])
    shown = seen(answer, "", click * 2)
    assert (shown["order"], shown["sorted"]) == ([2, 3, 4, 1], ["descending"])
    names = "document.querySelectorAll('table.main thead button')[0].click();"
    assert seen(answer, "", names)["order"] == [3, 1, 4, 2]


@needs_browser
def test_tables_of_sections_sort_by_every_column_and_matrices_by_none(seen: Look) -> None:
    """Numbers in texts count as numbers, a dash as no value; a matrix of pairs has its rows in its columns' order."""
    rows = "".join(
        f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in zip("abcd", ("10", "–", "9", "80"), strict=True)
    )
    table = "<table{}><thead><tr><th>Name</th><th class=num>Count</th></tr></thead><tbody>" + rows + "</tbody></table>"
    more = table.format(" id=more") + table.format(" class=matrix")
    click = "document.querySelectorAll('#more button')[1].click();"
    assert seen(four(), "", "", more)["column"] == ["10", "–", "9", "80"]
    assert seen(four(), "", click, more)["column"] == ["9", "10", "80", "–"]
    shown = seen(four(), "", click * 2, more)
    assert (shown["column"], shown["buttons"]) == (["80", "10", "9", "–"], [])


def systems() -> Made:
    """Return the answer of `compare` to systems with a run each, of which the cheapest is the worst."""
    lines = right_and_wrong({"alpha": 0.5, "beta": 0.52, "gamma": 0.8}, 200)
    cost = {"alpha": 2.0, "beta": 4.0, "gamma": 9.0}
    found = assemble([of_frame(pd.DataFrame([line | {"dollars": cost[line["system"]]} for line in lines]))])
    answer: Made = json.loads(summarize(judge(found[0])).model_dump_json())
    return answer


@needs_browser
def test_a_cost_of_any_name_is_a_limit(seen: Look) -> None:
    """Of systems: the column's own title, rows that can't tell, and no word of methods or training."""
    shown = seen(systems(), "#?cost-dollars=5")
    assert (shown["x"], shown["boxes"]) == ("cost-dollars", {"cost-dollars": "5", "score": ""})
    assert shown["gone"] == ["Dollars over 5: gamma 9.00."]
    assert shown["pick"] == [
        "Within your limits in one run each: beta or alpha may have the highest score. These rows can't tell which."
    ]
    by_cost = seen(systems(), "#?first=cost-dollars")
    assert by_cost["pick"] == ["Costs rank nothing here: ranks take three seeds that all systems share."]


@needs_browser
def test_a_half_is_rounded_as_in_the_table(seen: Look) -> None:
    """To the even digit, as Python does: 64.25 is 64.2 and 64.75 is 64.8, whichever of them shows it."""
    costs = {"a": [5.0] * 3, "b": [4.0] * 3}
    answer = made({"a": [64.75] * 3, "b": [64.25] * 3}, train_seconds=costs)
    groups = seen(answer, "#?score=64")["groups"]
    texts = " ".join(text for of in groups.values() for text in of)
    assert f"64.2{NB}%" in texts
    assert f"{64.25:.1f} {64.75:.1f}" == "64.2 64.8"
