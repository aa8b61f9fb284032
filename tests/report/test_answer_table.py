"""Behaviour: rows and cells say of methods what the verdicts say: as bars, data, a matrix,
numbers, in a terminal.
"""

import io
import json
from collections.abc import Sequence
from itertools import combinations
from types import ModuleType
from typing import Any, get_args
from xml.etree import ElementTree as ET

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from helpers.answers import ACCURACY, RMSE, an_answer
from helpers.elements import Elements
from hpml_bench.judge.summary import Failure, PageSummary, Relation, Values
from hpml_bench.page import terminal
from hpml_bench.page.answer import words
from hpml_bench.page.answer.screen import bars, context
from hpml_bench.page.answer.sections import answer_table, deciding_section, matrix_section, turns
from hpml_bench.page.tables import parts, placed
from hpml_bench.plugins.blocks import Section, Table
from hpml_bench.suite.suite import packaged
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

FIVE = {"full": 79.0, "lora": 78.9, "prompt_tuning": 76.0, "adapter": 75.3, "head": 72.5}
ERRORS = {"full": 0.311, "lora": 0.312, "adapter": 0.398, "head": 0.585}
HOSTILE = "</script><b>&\"'"


def of_every_kind(scores: dict[str, float], **fields: Any) -> list[PageSummary]:
    """Return answers with some pairs undecided, equal and untested."""
    pairs = tuple(combinations(scores, 2))
    kinds: list[dict[str, Any]] = [
        {"open_": pairs[::3], "equal": pairs[1::3]},
        {"open_": pairs[:1], "untested": pairs[1:2]},
        {},
    ]
    return [an_answer(scores, **kind, **fields) for kind in kinds]


# Bars


TINY = an_answer({"a": 80.0, "b": 79.99, "c": 20.0})
"""On the common scale the first difference, which is real, would touch the line."""


@pytest.mark.parametrize("answer", [*of_every_kind(FIVE), *of_every_kind(ERRORS, score=RMSE), TINY])
def test_a_bar_is_clear_of_zero_just_where_the_method_is_shown_to_differ(
    answer: PageSummary,
) -> None:
    """Worse lies left of the line, in both directions of the score; hollow marks are those
    without a verdict.
    """
    found, best = bars(answer), answer.methods[0].name
    assert set(found.svg) == set(answer.by_name)
    for name in (method.name for method in answer.methods[1:]):
        parts = [element.attrib for element in ET.fromstring(found.svg[name])]
        at_zero, *line = [of for of in parts if "x1" in of]
        dot, *hollow = [of for of in parts if "cx" in of]
        zero, mark, radius = float(at_zero["x1"]), float(dot["cx"]), float(dot["r"])
        relation = answer.relation("score", name, best)
        assert bool(hollow) == (relation != "worse")
        assert mark <= (zero - 2 - radius if relation == "worse" else zero)
        assert bool(line) == (relation != "untested")
        for low, high in ((float(of["x1"]), float(of["x2"])) for of in line):
            assert low <= mark <= high or relation == "worse"
            assert (high < zero - 2) == (relation == "worse")


def test_methods_that_share_no_seed_have_no_bar() -> None:
    """Without a common seed there is no difference to draw, nor to say."""
    answer = an_answer({"a": 80.0, "b": 79.0}, pairs={})
    assert set(bars(answer).svg) == set(bars(answer).value) == {"a"}
    assert answer_table(answer).values[1][2:5] == (None, None, None)


# The screen


@pytest.mark.parametrize(
    "answer",
    [
        an_answer({HOSTILE: 80.0, "b": 79.0}, suite=HOSTILE, open_=((HOSTILE, "b"),)),
        an_answer({"a": 80.0}, pairs={}),
        an_answer({}, pairs={}),
        an_answer(
            {f"m{n}": float(n) for n in range(45)},
            failures=(Failure(method="m1", seed=0, status="oom_cuda"),),
        ),
    ],
    ids=["hostile", "one", "none", "many"],
)
def test_the_screen_is_safe_and_whole(answer: PageSummary) -> None:
    """Text stays text, and the data for the page's script are the answer's, with a letter a
    relation.
    """
    loader = FileSystemLoader(packaged("templates", "templates"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"sanitize": sanitize, "emphasise": lambda sentence, *_: sentence}
    screen = Elements(environment.get_template("answer.html.j2").render(context(answer)))
    (text,) = screen.said("script", id="data")
    assert not set("<>&") & set(text)
    data = json.loads(text)
    relations = data.pop("relations")
    assert data == answer.model_dump(mode="json", exclude={"pairs"})
    names, letters = (
        [method.name for method in answer.methods],
        {r[0]: r for r in get_args(Relation)},
    )
    for by in ("score", *(axis.key for axis in answer.axes)):
        for row, one in zip(relations[by], names, strict=True):
            assert [letters[at] for at in row] == [
                answer.relation(by, one, other) for other in names
            ]
    assert screen.of("script") == [{"type": "application/json", "id": "data"}]
    assert bool(answer.failures) == any("banner" in str(p.get("class")) for p in screen.of("p"))


# Lines in a terminal


MANY = {f"a_rather_long_method_name_of_many_words_{n:02d}": 90.0 - n for n in range(45)}


def lines(answer: PageSummary, width: int, encoding: str = "utf-8") -> list[str]:
    """Return what a terminal of this width and encoding gets."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    terminal.show_answer(answer, Console(file=stream, width=width))
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("title", ["accuracy", "mean absolute error of the angle in the image"])
@pytest.mark.parametrize("width", [30, 60, 80, 140])
@pytest.mark.parametrize("scores", [FIVE, MANY, {"full": 79.0}], ids=["five", "many", "one"])
def test_no_line_is_wider_than_the_terminal(
    scores: dict[str, float], width: int, title: str
) -> None:
    """Long verdicts go on beneath themselves; columns of costs are left out rather than broken,
    sizes first.

    Under 40 characters nothing is narrowed, and all scores are whole.
    """
    score = ACCURACY.model_copy(update={"title": title})
    answer = an_answer(scores, open_=tuple(combinations(scores, 2))[:3], score=score)
    found = lines(answer, width)
    assert max(map(len, found)) <= max(40, width)
    (header,) = (line.split() for line in found if line.startswith("method "))
    assert (header[0], header[-1]) == ("method", "verdict")
    words_of = [line.split() for line in found]
    assert all(any(f"{value:.1f}" in of for of in words_of) for value in [*scores.values()][:24])
    costs = [name for name in ("time", "memory", "saved") if name in header]
    assert costs == ["time", "memory", "saved"][: len(costs)]
    assert len(costs) == 3 or width < 140 or title != "accuracy"


def test_each_method_has_its_row_with_verdict_and_costs() -> None:
    """The table has the page's rows: score, costs, whom a method can't be told from.

    Of 45 methods the best have a line each, then how many more, and the sentences stand last, where
    one looks. Where the encoding lacks typographic signs, plain ones stand for them, and names are
    no markup.
    """
    answer = an_answer(FIVE, open_=(("full", "lora"),))
    found = lines(answer, 140)
    assert found[0] == words.headline(answer)
    rows = {line.split()[0]: line for line in found[3:]}
    assert list(rows) == ["method", *FIVE]
    assert rows["method"].split() == [
        "method",
        "accuracy",
        "%",
        "time",
        "s",
        "memory",
        "MB",
        "saved",
        "verdict",
    ]
    assert rows["lora"].split("  ")[-1] == "may be best; can't tell from full"
    assert {"78.9", "9.00", "460"} <= set(rows["lora"].split())
    answer = an_answer(MANY)
    found = lines(answer, 100)
    assert len(found) < 35
    assert found[1].startswith(f" 1 {next(iter(MANY))[:30]}...  ")
    assert found[25] == "... and 21 methods more, on the page"
    assert " ".join(found[-2:]).endswith(words.headline(answer))
    odd = lines(
        an_answer({"\N{MINUS SIGN}3 1\N{EN DASH}2 é": 80.0, "[b]:smile:": 70.0}), 140, "ascii"
    )
    assert [line[:10] for line in odd[-2:]] == ["-3 1-2 ?  ", "[b]:smile:"]


# The matrix, what would decide, and places


THREE = {"a": 80.0, "b": 79.0, "c": 70.0}


@pytest.mark.parametrize(
    ("answer", "at", "rows"),
    [
        (
            an_answer(THREE, open_=(("a", "b"),)),
            0,
            [" | +1.0 ? | +10.0 ▲", "−1.0 ? |  | +9.0 ▲", "−10.0 ▼ | −9.0 ▼ | "],
        ),
        (
            an_answer(THREE, equal=(("a", "b"),), untested=(("a", "c"),)),
            0,
            [" | +1.0 = | +10.0", "−1.0 = |  | +9.0 ▲", "−10.0 | −9.0 ▼ | "],
        ),
        (an_answer({"a": 0.3, "b": 0.4}, score=RMSE), 0, [" | −0.100 ▲", "+0.100 ▼ | "]),
        (
            an_answer(
                {"a": 80.0, "b": 79.0}, costs={"a": (2.0, 300.0, 1.0), "b": (1.0, 200.0, 1.0)}
            ),
            1,
            [" | × 2.00 ▼", "× 0.50 ▲ | "],
        ),
    ],
    ids=["open", "equal and untested", "lower is better", "factors"],
)
def test_a_row_of_the_matrix_is_seen_from_its_method(
    answer: PageSummary, at: int, rows: list[str]
) -> None:
    """Differences turn round with the pair, and sign and mark say the verdict, which of errors
    the sign doesn't.
    """
    section = matrix_section(answer)
    made = [block for block in (section.leaves if section else ()) if isinstance(block, Table)]
    assert [" | ".join(row[1:]) for row in made[at].rows] == rows
    signs = {"better": "▲", "worse": "▼", "open": "?", "equal": "=", None: ""}
    assert made[at].marks
    for texts, marks in zip(made[at].rows, made[at].marks, strict=True):
        assert all(text.endswith(signs[mark]) for text, mark in zip(texts, marks, strict=True))


@pytest.mark.parametrize(
    ("difference", "said"),
    [(0.004, "a or b: less than 0.1 points apart."), (1.0, "a or b: 1.0 point apart.")],
)
def test_an_open_pair_that_hardly_differs_is_not_said_to_be_nothing_apart(
    difference: float, said: str
) -> None:
    """A difference that rounds to 0.0 has a bound instead, since rows are named that would show
    it.
    """
    answer = an_answer({"a": 80.0, "b": 80.0 - difference}, open_=(("a", "b"),))
    assert said in str(deciding_section(answer))


@pytest.mark.parametrize(
    ("methods", "seeds", "said"),
    [
        ("ab", 3, True),
        ("abc", 3, False),
        ("ab", 4, False),
        (("a", "b", "none"), 3, True),
    ],
)
def test_orders_of_two_methods_over_three_seeds_bound_no_rhythm(
    methods: Sequence[str], seeds: int, said: bool
) -> None:
    """Said of ranked costs alone; a base model, which has none, is no third method."""
    answer = an_answer({name: 80.0 - at for at, name in enumerate(methods)})
    pairs = {
        of: tuple(
            p.model_copy(update={"shared": seeds}) for p in pairs if of == "score" or p.b != "none"
        )
        for of, pairs in answer.pairs.items()
    }
    sentence = (
        "No order of two methods over three seeds bounds a disturbance that returns every few runs."
    )
    assert turns(answer.model_copy(update={"pairs": pairs})) == (sentence if said else "")
    assert turns(answer.model_copy(update={"pairs": {"score": answer.pairs["score"]}})) == ""


def test_a_section_stands_where_its_module_says() -> None:
    """Without a word it answers what was run, behind a click; a question that the page doesn't
    ask is refused.
    """
    made = Section(slug="own", title="Own", blocks=())
    bare = placed(ModuleType("bare"), "bare", made)
    assert (bare.question, bare.folded, bare.about) == ("setup", True, "")
    module: Any = ModuleType("told")
    module.question, module.folded, module.about = "cost", False, "a word"
    told = placed(module, "told", made)
    assert {
        part.key: (part.shown, part.folded)
        for part in parts((bare, told))
        if part.shown or part.folded
    } == {
        "cost": ((told,), ()),
        "setup": ((), (bare,)),
    }
    module.question = "why"
    with pytest.raises(
        UserError, match=r"the section 'odd' answers 'why'; .* one of best, cost, sure"
    ):
        placed(module, "odd", made)


@pytest.mark.parametrize(
    ("seconds", "cell"),
    [
        ((40.0, 50.0), "45.0"),
        ((15.0, 60.4, 80.0), "51.8 (15.0 to 80.0)"),
        ((51.8,), "51.8"),
        ((0.0, 0.0), "0"),
    ],
    ids=["steady", "far apart", "one run", "none"],
)
def test_a_mean_of_runs_that_lie_far_apart_is_shown_with_its_range(
    seconds: tuple[float, ...], cell: str
) -> None:
    """The least and the most of a method's runs stand beside a cost where they differ by more than
    a quarter.
    """
    answer = an_answer({"full": 79.0})
    (method,) = answer.methods
    time = Values(mean=sum(seconds) / len(seconds), runs=seconds)
    method = method.model_copy(update={"values": method.values | {answer.axes[0].id: time}})
    header, row = words.cells(answer.model_copy(update={"methods": (method,)}))
    assert dict(zip(header, row, strict=True))["time s"] == cell
