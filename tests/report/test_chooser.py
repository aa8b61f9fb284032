"""The scripts of a report's first screen, in Chromium: limits, words, address, folds, sorting."""

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import pytest

from helpers.answers import ACCURACY, MEMORY, RMSE, SIZE, TIME, an_answer
from helpers.browser import look, needs_browser
from helpers.made_tables import right_and_wrong
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.summarize import summarize
from hpml_bench.judge.summary import Failure, Method, PageSummary, Pair, Score, Values
from hpml_bench.judge.verdicts import judge
from hpml_bench.page.answer.sections import each_section
from hpml_bench.page.render import Page, write_page

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
    x: document.querySelector("input[name=x]:checked")?.value,
    first: (document.querySelector("input[name=first]:checked") || {}).value,
    limits: document.querySelectorAll(".p-memory .limline").length,
    open: [...document.querySelectorAll("details[open]")].length,
    focus: document.activeElement.id || document.activeElement.className || document.activeElement.tagName,
    lit: [...document.querySelectorAll(".hot")].length, owned: window.owned || "",
    isolated: text(".result bdi"), column: text("#more tbody td"), buttons: text(".matrix button"),
    tip: text("#tip:not([hidden])"), images: document.images.length,
  });
  document.body.append(made);
}, 1500);
"""  # noqa: E501

Shown = dict[str, Any]
Look = Callable[..., Shown]
Runs = dict[str, list[float]]


def made(scores: Runs, score: Score = ACCURACY, **costs: Runs) -> PageSummary:
    """Return an answer of methods with runs by seed; pairs differ where no run of one reaches
    the other's.
    """
    axes = [axis for axis in (TIME, MEMORY, SIZE) if axis.id in costs] or [TIME]
    values, sign = {"score": scores} | costs, -1 if score.better == "higher" else 1
    names = sorted(scores, key=lambda name: sign * fmean(scores[name]))

    def pair(metric: str, a: str, b: str) -> Pair:
        p, q = values[metric][a], values[metric][b]
        apart, least = (
            max(p) < min(q) or max(q) < min(p),
            min(a, b, key=lambda name: fmean(values[metric][name])),
        )
        winner = {a: b, b: a}[least] if metric == "score" and sign < 0 else least
        verdict: Any = "untested" if len(p) < 3 else "different" if apart else "undecided"
        return Pair(
            a=a,
            b=b,
            verdict=verdict,
            winner=winner if verdict == "different" else None,
            difference=float(metric != "score"),
            shared=len(p),
        )

    return an_answer(
        {},
        score=score,
        axes=axes,
        seeds=len(next(iter(scores.values()))),
        methods=[
            Method(
                name=name,
                kind=name,
                seeds=len(scores[name]),
                values={
                    metric: Values(mean=fmean(of[name]), runs=of[name])
                    for metric, of in values.items()
                    if name in of
                },
            )
            for name in names
        ],
        pairs={
            metric: [
                pair(metric, a, b)
                for a, b in combinations(names, 2)
                if {a, b} <= set(values[metric])
            ]
            for metric in ("score", *(axis.tested for axis in axes if axis.tested in values))
        },
    )


def four(**fields: Any) -> PageSummary:
    """Return lora and full, which can't be told apart, adapter, and head, which is cheapest;
    with other fields.
    """
    return made(
        {"full": [80, 79, 81], "lora": [79, 80, 79], "adapter": [76, 75, 75], "head": [70, 71, 70]},
        train_seconds={"full": [9, 9, 9.3], "lora": [6, 6, 6.3],
                       "adapter": [4, 5, 6], "head": [1, 1, 1.3]},
        peak_memory_mb={"full": [900, 900, 909], "lora": [640, 650, 660],
                        "adapter": [600] * 3, "head": [500] * 3},
        peak_memory_over_setup_mb={"full": [400] * 3, "lora": [90] * 3,
                                   "adapter": [95] * 3, "head": [10] * 3},
        saved_bytes={"full": [5] * 3, "lora": [0.3] * 3, "adapter": [0.1] * 3, "head": [0.1] * 3},
    ).model_copy(update=fields)  # fmt: skip


def changed(at: int, values: dict[str, Values | None], **fields: Any) -> PageSummary:
    """Return the four, of which a method has other values, or none, of some metrics, and other
    fields.
    """
    methods = list(four().methods)
    own = {metric: value for metric, value in (methods[at].values | values).items() if value}
    methods[at] = methods[at].model_copy(update={"values": own} | fields)
    return four(methods=tuple(methods))


LACKS_TIME, LACKS_MEMORY = changed(0, {"train_seconds": None}), changed(0, {"peak_memory_mb": None})
AVERAGING = changed(0, {"peak_memory_mb": Values(mean=903.3, runs=(900.0, 900.0, 909.9))})
WITH_BASE = changed(
    1, dict.fromkeys(("train_seconds", "peak_memory_mb", "peak_memory_over_setup_mb")), base=True
)
UNRANKED = four(
    unranked="runs had neighbours on their host",
    axes=tuple(axis.model_copy(update={"tested": None}) for axis in (TIME, MEMORY, SIZE)),
)


def by_way_of_another() -> PageSummary:
    """Return an answer in which a beats c and c beats b, but a and b are open."""
    answer = made({"a": [80, 82, 84], "b": [70, 79, 81], "c": [74, 76, 78]})
    beaten = {"verdict": "different", "winner": "c"}
    pairs = tuple(
        p.model_copy(update=beaten) if {p.a, p.b} == {"b", "c"} else p
        for p in answer.pairs["score"]
    )
    return answer.model_copy(update={"pairs": {"score": pairs}})


def by_other_seeds() -> PageSummary:
    """Return an answer in which b beats a in the seeds that they share, though a has the better
    mean.
    """
    answer = made({"a": [80, 82, 84], "b": [70, 72, 74], "c": [60, 60, 60]})
    beats = {"verdict": "different", "winner": "b"}
    pairs = tuple(
        p.model_copy(update=beats) if {p.a, p.b} == {"a", "b"} else p for p in answer.pairs["score"]
    )
    return answer.model_copy(update={"pairs": {"score": pairs}})


def forty_five() -> PageSummary:
    """Return an answer of methods of which better ones are faster."""
    scores = {f"method_{i}": [90.0 - 2 * i, 90.1 - 2 * i, 90.2 - 2 * i] for i in range(45)}
    return made(
        scores, train_seconds={name: [i, i + 0.1, i + 0.2] for i, name in enumerate(scores, 1)}
    )


def systems() -> PageSummary:
    """Return the answer of `compare` to systems with a run each, of which the cheapest is the
    worst.
    """
    lines = right_and_wrong({"alpha": 0.5, "beta": 0.52, "gamma": 0.8}, 200)
    cost = {"alpha": 2.0, "beta": 4.0, "gamma": 9.0}
    found = assemble(
        [of_frame(pd.DataFrame([line | {"dollars": cost[line["system"]]} for line in lines]))]
    )
    return summarize(judge(found[0]))


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Look]:
    """Return what opens a page of an answer at a fragment, does something there, and says what
    it shows then.
    """

    def look_at(answer: PageSummary, fragment: str = "", act: str = "", more: str = "") -> Shown:
        each = [section for section in (each_section(answer),) if section]
        page = Page(answer, tuple(each), {"Data": "rows"}, 0, "", "")
        path = write_page(page, tmp_path, ("html",))[0]
        text = re.sub(
            r'<meta http-equiv="Content-Security-Policy"[^>]*>',
            "",
            path.read_text(encoding="utf-8"),
        )
        text = text.replace("</main>", f"{more}</main>").replace(
            "</body>", f"<script>{act}\n{SEEN}</script></body>"
        )
        path.write_text(text, encoding="utf-8")
        document, console = look(path, tmp_path / "profile", fragment)
        assert console == []
        found = re.search('<pre id="seen">(.*?)</pre>', document, re.DOTALL)
        assert found, document[:2000]
        shown: Shown = json.loads(unescape(found[1]).replace("\\u00a0", " ").replace("\u00a0", " "))
        lines = [*shown["pick"], *shown["near"], *shown["loose"]]
        for sentence in (part for line in lines for part in re.split(r"(?<=[.?]) ", line)):
            assert len(sentence.split()) <= 20, sentence
        return shown

    return look_at


WITHIN = "Within your limits in every "
LEADS = "adapter has the highest accuracy: 75.3 %."
ERRORS = made(
    {"full": [0.3, 0.31, 0.3], "lora": [0.4, 0.41, 0.4], "head": [0.6, 0.61, 0.6]},
    RMSE.model_copy(update={"digits": 2}),
)
ONE_SEED = made(
    {name: [score] for name, score in (("full", 80), ("lora", 79), ("adapter", 76), ("head", 70))}
)
IN_TURN = {"a": [80, 82, 84], "b": [77, 79, 81], "c": [74, 76, 78], "d": [60, 60, 60]}
UNTESTED = "Costs rank nothing here: "


def click(head: int) -> str:
    """Return a click on the head of a column of the main table."""
    return f"document.querySelectorAll('table.main thead button')[{head}].click();"


SLIDE = (
    "const r = document.querySelector('#r-score'); r.value = %s; r.dispatchEvent(new "
    "Event('input'));"
)
LINK = "document.querySelector('#row-3 .nm').click();"
ESCAPE = (
    "document.%s.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));"
)
MARK = """
[...document.querySelectorAll('.pt[data-m="1"]')].find((one) => one.getBoundingClientRect().width).focus();
"""  # noqa: E501
TYPED = (
    "const box = document.querySelector('#n-time'); box.value = '8'; box.dispatchEvent(new "
    "Event('input'));"
)
SPOKEN = """
const said = [], box = document.querySelector("#n-memory"), status = document.querySelector("[role=status]");
new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
for (const value of ["6", "62", "620"]) { box.value = value; box.dispatchEvent(new Event("input")); }
setTimeout(() => { status.textContent = `${said.length}: ${said[0]}`; }, 1400);
"""  # noqa: E501
SCREENS: dict[str, Any] = {
    "ties are a group": (
        four(),
        "",
        {
            "pick": ["full or lora may have the highest accuracy. These runs can't tell which."],
            "groups": {
                "May be best": ["full 80.0 %", "lora 79.3 %"],
                "Then by mean": ["adapter 75.3 %", "head 70.3 %"],
            },
            "hash": "",
            "gone": [],
            "near": [],
            "status": [""],
        },
    ),
    "two are beyond a limit": (
        four(),
        "#?memory=620",
        {
            "pick": [f"{WITHIN}run: {LEADS}"],
            "gone": ["Memory over 620 MB: full 903 MB, lora 650 MB."],
            "chips": {
                "1": ["beyond limit: memory"],
                "2": ["beyond limit: memory"],
                "3": [],
                "4": [],
            },
            "rows": {"1": "top out", "2": "top out", "3": "", "4": ""},
            "x": "memory",
            "boxes": {"memory": "620"},
            "marks": {"1": "pt top out", "2": "pt top out", "3": "pt", "4": "pt"},
            "limits": 2,
        },
    ),
    "runs that failed": (
        four(failures=(Failure(method="lora", seed=3, status="failed"),)),
        "#?memory=620",
        {"pick": [f"{WITHIN}run that ended well: {LEADS}"]},
    ),
    "shared seeds": (
        four(shared=3),
        "#?memory=620",
        {"pick": [f"{WITHIN}run of the shared seeds: {LEADS}"]},
    ),
    "a close one never leads": (
        four(),
        "#?memory=655",
        {
            "pick": [f"{WITHIN}run: {LEADS}"],
            "near": ["Close: lora averages 650 MB. 1 of 3 runs is over 655 MB, by up to 5.0 MB."],
            "chips": {"2": ["close: 1 of 3 runs over memory limit, by up to 5.0 MB"]},
            "rows": {"2": "top near"},
            "marks": {"2": "pt top near"},
            "groups": {"Then by mean": ["head 70.3 %"]},
        },
    ),
    "a mean above the limit": (
        AVERAGING,
        "#?memory=903.2",
        {"gone": ["Memory over 903.2 MB: full 903.3 MB."]},
    ),
    "a mean below the limit": (
        AVERAGING,
        "#?memory=904",
        {
            "near": ["Close: full averages 903 MB. 1 of 3 runs is over 904 MB, by up to 5.9 MB."],
        },
    ),
    "limits to loosen": (
        four(),
        "#?time=2&score=74",
        {
            "pick": ["Nothing fits your limits."],
            "loose": [
                "Raise the time limit to 6 s: adapter fits.",
                "Lower the accuracy limit to 70 %: head fits.",
            ],
        },
    ),
    "none in every run": (
        four(),
        "#?score=79.1",
        {"pick": ["Nothing stays within your limits in every run."]},
    ),
    "lower is better": (
        ERRORS,
        "#?score=0.5",
        {
            "pick": [f"{WITHIN}run: full has the lowest RMSE: 0.30."],
            "gone": ["RMSE over 0.5: head 0.60."],
        },
    ),
    "memory ranks by what training adds": (
        four(),
        "#?first=memory&score=74",
        {
            "pick": [f"{WITHIN}run: lora needs least memory to train: 90.0 MB of its 650 MB peak."],
            "groups": {
                "Then by mean": [
                    "adapter 95.0 MB of its 600 MB peak",
                    "full 400 MB of its 903 MB peak",
                ]
            },
        },
    ),
    "sizes are exact": (
        four(),
        "#?first=size",
        {
            "pick": ["adapter and head save the smallest file: 100 kB."],
            "groups": {"Then by mean": ["lora 300 kB", "full 5.00 MB"]},
        },
    ),
    "ties do not pass on": (
        made(IN_TURN),
        "",
        {
            "groups": {
                "May be best": ["a 82.0 %", "b 79.0 %"],
                "Then by mean": ["c 76.0 %, can't tell from b", "d 60.0 %"],
            },
        },
    ),
    "a leader that beats not each": (
        by_way_of_another(),
        "",
        {
            "pick": ["a may have the highest accuracy: 82.0 %. It can't be told from b."],
        },
    ),
    "a leader without the best mean": (
        by_other_seeds(),
        "",
        {
            "pick": ["b is shown to be best by accuracy, over what each pair shares."],
        },
    ),
    "one seed": (
        ONE_SEED,
        "#?score=74",
        {
            "pick": [
                "Within your limits in one run each: full, lora and adapter. "
                "One seed can't rank methods: run 3 or more."
            ],
            "titles": ["By mean, not tested"],
        },
    ),
    "costs that rank nothing": (
        UNRANKED,
        "#?first=time&memory=620",
        {
            "pick": [
                f"{WITHIN}run: head and adapter. {UNTESTED}runs had neighbours on their host."
            ],
            "titles": ["By mean, not tested"],
        },
    ),
    "a base model is not trained": (
        WITH_BASE,
        "#?time=5&first=time",
        {
            "groups": {"Not measured": ["the base model (not trained)"]},
            "rows": {"2": "top"},
        },
    ),
    "who does not beat the base model": (
        WITH_BASE,
        "",
        {"near": ["Not shown to beat the base model: full."]},
    ),
    "what was not measured": (
        LACKS_MEMORY,
        "#?memory=2000",
        {
            "gone": ["Memory not measured: full."],
            "chips": {"1": ["not measured: memory"]},
        },
    ),
    "many go by numbers": (
        forty_five(),
        "#?time=20.3&first=time",
        {
            "pick": [f"{WITHIN}run: no. 1 method_0 trains fastest: 1.10 s."],
            "gone": ["Time over 20.3 s: 25 methods, no. 21–45."],
        },
    ),
    "the address restores the choice": (
        four(),
        "#?x=memory&memory=620&score=74&first=time&at=cost",
        {
            "x": "memory",
            "first": "time",
            "hash": "#?x=memory&memory=620&score=74&first=time&at=cost",
            "boxes": {"time": "", "memory": "620", "size": "", "score": "74"},
        },
    ),
    "what the address has of unknown": (
        four(),
        "#?x=speed&memory=12abc&time=-3&size=&score=Infinity&first=toString&at=nowhere&more=1",
        {
            "boxes": {"time": "", "memory": "", "size": "", "score": ""},
            "x": "time",
            "first": "score",
        },
    ),
    "an anchor opens its fold": (four(), "#m-2", {"open": 1}),
    "the score's column is marked": (LACKS_TIME, "", {"sorted": ["descending"]}),
    "a cost of any name": (
        systems(),
        "#?cost-dollars=5",
        {
            "x": "cost-dollars",
            "boxes": {"cost-dollars": "5", "score": ""},
            "gone": ["Dollars over 5: gamma 9.00."],
            "pick": [
                "Within your limits in one run each: beta or alpha may have the highest score. "
                "These rows can't tell which."
            ],
        },
    ),
    "a half is rounded to the even digit": (
        made({"a": [64.75] * 3, "b": [64.25] * 3}, train_seconds={"a": [5.0] * 3, "b": [4.0] * 3}),
        "#?score=64",
        {"groups": {"Then by mean": ["b 64.2 %"]}},
    ),
    "a limit is typed": (
        four(),
        "#?x=memory&memory=620&score=74&first=time&at=cost",
        {"hash": "#?time=8&memory=620&score=74&first=time"},
        TYPED,
    ),
    "a slider sets a limit": (
        four(),
        "",
        {"hash": "#?score=75.5", "boxes": {"score": "75.5"}},
        SLIDE % 50,
    ),
    "a button clears all": (
        four(),
        "#?score=75&memory=620",
        {
            "boxes": {"time": "", "memory": "", "size": "", "score": ""},
            "gone": [],
        },
        "document.querySelector('.clear').click();",
    ),
    "a mark lights its row": (four(), "#?memory=620", {"lit": 7}, MARK),
    "escape closes its tip": (four(), "", {"tip": []}, MARK + ESCAPE % "body"),
    "a row lights its marks": (
        four(),
        "",
        {"lit": 7},
        "document.querySelector('#row-2 .nm').focus();",
    ),
    "a link opens its fold": (four(), "", {"open": 1, "hash": "#m-3", "focus": "m-3"}, LINK),
    "escape leads back to the link": (
        four(),
        "#?memory=620",
        {"open": 0, "focus": "nm"},
        LINK + ESCAPE % "activeElement",
    ),
    "a column sorts": (LACKS_TIME, "", {"order": [4, 3, 2, 1], "sorted": ["ascending"]}, click(2)),
    "what has no value stays last": (
        LACKS_TIME,
        "",
        {"order": [2, 3, 4, 1], "sorted": ["descending"]},
        click(2) * 2,
    ),
    "names sort": (four(), "", {"order": [3, 1, 4, 2]}, click(0)),
    "a change is spoken once": (
        four(),
        "",
        {
            "status": [
                f"1: {WITHIN}run: {LEADS} 2 of 4 methods fit in every run.",
            ]
        },
        SPOKEN,
    ),
}
"""Page, fragment of its address, what it shows then, and what is done to it before."""


@needs_browser
@pytest.mark.parametrize("case", SCREENS)
def test_what_limits_leave_is_said_as_the_verdicts_have_it(case: str, seen: Look) -> None:
    """Who leads, who may be best, who is close or beyond and by which limit: in sentences, table,
    marks and address.

    Boxes, sliders, links, marks and heads of columns do what they say, by mouse and by keyboard; of
    some changes 0.7 s after the last the status says the result.
    """
    answer, fragment, expected, *act = SCREENS[case]
    shown = seen(answer, fragment, *act)
    for key, value in expected.items():
        found = (shown | {"titles": list(shown["groups"])})[key]
        assert ({at: found[at] for at in value} if isinstance(value, dict) else found) == value, key


@needs_browser
def test_a_tip_says_all_of_a_method(seen: Look) -> None:
    """Its values, whom it can't be told from, whom it beats, and its limits; long lists say how
    many more.
    """
    (tip,) = seen(four(), "#?memory=620", MARK)["tip"]
    for part in (
        "Accuracy 80.0 %",
        "Can't tell from lora.",
        "Better than adapter and head.",
        "beyond limit: memory",
    ):
        assert part in tip
    others = seen(forty_five(), "#?time=20.3&first=time")["groups"]["Then by mean"]
    assert (len(others), others[-1]) == (7, "and 13 more")


@needs_browser
def test_hostile_names_are_text(seen: Look) -> None:
    """No element, script or attribute arises of a name; one that runs right to left leaves the
    sentence's order.
    """
    names = (
        "<img src=x onerror=\"owned='1'\">",
        "\"'`${owned='1'}</script><b>",
        "\u05d0\u05d1\u05d2",
        "__proto__",
    )
    runs = ([80.0, 80.5, 81.0], [70.0, 70.5, 71.0], [60.0, 60.5, 61.0], [50.0, 50.5, 51.0])
    scores = {name: list(of) for name, of in zip(names, runs, strict=True)}
    costs = {name: [5.0 - i, 5.1 - i, 5.2 - i] for i, name in enumerate(names)}
    shown = seen(
        made(scores, train_seconds=costs), "#?time=4.5&at=<img>&x=<b>&first=constructor", MARK
    )
    assert (shown["owned"], shown["images"]) == ("", 0)
    assert shown["gone"][0].startswith("Time over 4.5")
    assert names[2] in shown["isolated"]
    assert shown["tip"]
    assert shown["tip"][0].startswith("<img src=x")


@needs_browser
def test_tables_of_sections_sort_by_every_column_and_matrices_by_none(seen: Look) -> None:
    """Numbers in texts count as numbers, a dash as no value; a matrix of pairs has its rows in
    its columns' order.
    """
    rows = "".join(
        f"<tr><th>{name}</th><td>{text}</td></tr>"
        for name, text in zip("abcd", ("10", "–", "9", "80"), strict=True)
    )
    table = (
        "<table{}><thead><tr><th>Name</th><th class=num>Count</th></tr></thead><tbody>"
        + rows
        + "</tbody></table>"
    )
    more = table.format(" id=more") + table.format(" class=matrix")
    click = "document.querySelectorAll('#more button')[1].click();"
    assert seen(four(), "", "", more)["column"] == ["10", "–", "9", "80"]
    assert seen(four(), "", click, more)["column"] == ["9", "10", "80", "–"]
    shown = seen(four(), "", click * 2, more)
    assert (shown["column"], shown["buttons"]) == (["80", "10", "9", "–"], [])
