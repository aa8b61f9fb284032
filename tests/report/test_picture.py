"""Behaviour: the picture shows each method where its numbers are, and a line over those that can't be told apart."""

from __future__ import annotations

import math
import re
from itertools import combinations, pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from helpers import made_records
from helpers.answers import RMSE, an_answer
from hpml_bench.cli import main
from hpml_bench.plugins.picture import Axis, Picture, Series
from hpml_bench.report.answer.from_results import answer_of
from hpml_bench.report.answer.model import Answer, Method, Values
from hpml_bench.report.pictures import charts
from hpml_bench.report.pictures.axes import axis
from hpml_bench.report.pictures.layout import NARROW, WIDE, layout
from hpml_bench.report.pictures.paper import DPI, flat, paper
from hpml_bench.report.pictures.screen import groups, pictures
from hpml_bench.report.pictures.svg import standalone
from hpml_bench.report.render import page_of, pictures_of
from hpml_bench.report.results import Results

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
FIVE = {"full": 79.0, "lora": 78.9, "prompt_tuning": 76.0, "adapter": 75.3, "head": 72.5}
HOSTILE = '<b>&"x"</b>'
Box = tuple[float, float, float, float]


class Line(NamedTuple):
    """A line beside the axis: where it stands, its ends, the heights of its dots, and whether it is one of the best."""

    x: float
    ends: tuple[float, float]
    heights: frozenset[float]
    top: bool


class Drawn:
    """What is read off a drawing."""

    def __init__(self, svg: str) -> None:
        self.root = ET.fromstring(svg)
        self.marks = {int(mark.attrib["data-m"]): mark for mark in self.root.iter() if "data-m" in mark.attrib}
        self.at = {n: (float(d.attrib["cx"]), float(d.attrib["cy"])) for n, d in self._parts("dot").items()}
        self.texts = {n: text.text or "" for n, text in self._parts("lab").items()}

    def _parts(self, kind: str) -> dict[int, ET.Element]:
        found = {n: [e for e in mark.iter() if e.get("class") == kind] for n, mark in self.marks.items()}
        return {n: elements[0] for n, elements in found.items()}

    @property
    def lines(self) -> list[Line]:
        """The lines of ties."""
        found = []
        for group in (e for e in self.root.iter() if e.get("class", "").split()[:1] == ["tie"]):
            line, *dots = group
            assert {line.attrib["x1"], line.attrib["x2"]} == {dot.attrib["cx"] for dot in dots}
            ends = (float(line.attrib["y1"]), float(line.attrib["y2"]))
            heights = frozenset(float(dot.attrib["cy"]) for dot in dots)
            found.append(Line(float(line.attrib["x1"]), ends, heights, group.attrib["class"] == "tie top"))
        return found

    @property
    def labels(self) -> dict[int, Box]:
        """The boxes of the labels, in a font that is 6.6 pixels a character wide and 12 high."""
        boxes = {}
        for n, text in self._parts("lab").items():
            x, y, width = float(text.attrib["x"]), float(text.attrib["y"]), 6.6 * len(self.texts[n])
            left = x - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
            boxes[n] = (left, y - 10, left + width, y + 2)
        return boxes

    def ticks(self, anchor: str) -> list[str]:
        """Return the texts of an axis: `end` of the vertical one, `middle` of the other."""
        ticks = [e for e in self.root.iter() if e.get("class") == "tick"]
        return [e.text or "" for e in ticks if e.attrib["text-anchor"] == anchor]


def drawn(answer: Answer, key: str = "time") -> Drawn:
    """Return what the wide picture of a cost shows."""
    return Drawn(next(picture.wide for picture in pictures(answer) if picture.key == key))


def every_drawing(answer: Answer) -> list[Drawn]:
    """Return all drawings of an answer, in both sizes."""
    return [Drawn(svg) for picture in pictures(answer) for svg in (picture.wide, picture.narrow)]


def tied_pairs(answer: Answer, numbers: list[int]) -> set[frozenset[int]]:
    """Return the pairs of drawn methods that can't be told apart, by their numbers."""
    names = {answer.number[method.name]: method.name for method in answer.methods}
    return {
        frozenset((a, b))
        for a, b in combinations(numbers, 2)
        if answer.relation("score", names[a], names[b]) in {"open", "equal"}
    }


def with_values(answer: Answer, name: str, **v: Values) -> Answer:
    """Return the answer with other values of a method."""
    methods = [m.model_copy(update={"v": m.v | v}) if m.name == name else m for m in answer.methods]
    return answer.model_copy(update={"methods": tuple(methods)})


# Ties


CASES = {
    "chain": an_answer(FIVE, open_=(("full", "lora"), ("lora", "prompt_tuning"), ("prompt_tuning", "adapter"))),
    "equal": an_answer(FIVE, equal=(("adapter", "head"),)),
    "all open": an_answer(FIVE, open_=tuple(combinations(FIVE, 2))),
    "all decided": an_answer(FIVE),
    "untested": an_answer(FIVE, untested=tuple(combinations(FIVE, 2))),
    "no pairs": an_answer(FIVE, pairs={}),
}


@pytest.mark.parametrize("answer", CASES.values(), ids=CASES)
def test_lines_cover_just_the_pairs_that_cannot_be_told_apart(answer: Answer) -> None:
    """Two methods have dots on one line just where their pair is undecided or equal; lines stand left of all marks."""
    top = {answer.number[name] for name in answer.top}
    for of in every_drawing(answer):
        at = {of.at[n][1]: n for n in of.at}
        members = [{at[y] for y in line.heights} for line in of.lines]
        joined = {frozenset(pair) for group in members for pair in combinations(group, 2)}
        assert joined == tied_pairs(answer, list(of.at))
        assert [line.top for line in of.lines] == [group <= top for group in members]
        right = min([x for x, _ in of.at.values()] + [box[0] for box in of.labels.values()])
        assert all(line.ends == (min(line.heights), max(line.heights)) and line.x < right - 3 for line in of.lines)
        assert all(b.x - a.x >= 5 for a, b in pairwise(of.lines))


def test_few_lines_cover_many_ties() -> None:
    """Methods of which no two can be told apart share one line; a chain of n methods has n - 1."""
    assert groups(CASES["all open"], list(FIVE)) == [tuple(FIVE)]
    assert groups(CASES["chain"], list(FIVE)) == [
        ("full", "lora"),
        ("lora", "prompt_tuning"),
        ("prompt_tuning", "adapter"),
    ]
    assert groups(CASES["all decided"], list(FIVE)) == []
    for case, tied in (("all decided", ""), ("all open", "top"), ("chain", "others")):
        assert {picture.tied for picture in pictures(CASES[case])} == {tied}


def test_more_groups_than_lines_are_counted() -> None:
    """Eight lines stand, those of the best methods first; how many more groups there are is said."""
    scores = {f"m{i:02d}": 90.0 - i for i in range(45)}
    chain = an_answer(scores, open_=tuple(pairwise(scores)))
    for picture in pictures(chain):
        for svg in (picture.wide, picture.narrow):
            lines = Drawn(svg).lines
            assert len(lines) == 8
            assert lines[0].ends == (min(y for line in lines for y in line.heights), lines[0].ends[1])
            assert all(b.x - a.x >= 5 for a, b in pairwise(lines))
        assert picture.more == 44 - 8
    assert all(not picture.more for picture in pictures(CASES["chain"]))


# Places of marks


@pytest.mark.parametrize("key", ["time", "memory", "size"])
@pytest.mark.parametrize("score", [None, RMSE], ids=["higher", "lower"])
def test_the_scale_lets_a_script_find_every_mark(key: str, score: Any) -> None:
    """From data-s alone, values lead to their marks, better ones higher up and cheaper ones further left."""
    answer = an_answer(FIVE, score=score) if score else an_answer(FIVE)
    of = drawn(answer, key)
    log, x0, x1, left, right, y0, y1, top, bottom, sign = map(float, of.root.attrib["data-s"].split())
    assert left < right
    assert top < bottom
    assert sign == (-1 if score else 1)
    axis = next(axis for axis in answer.axes if axis.key == key)
    scale = math.log if log else float
    for method in answer.methods:
        x = left + (scale(method.v[axis.id].m) - scale(x0)) / (scale(x1) - scale(x0)) * (right - left)
        share = (method.v["score"].m - y0) / (y1 - y0)
        y = top + (1 - share if sign > 0 else share) * (bottom - top)
        assert of.at[answer.number[method.name]] == pytest.approx((x, y), abs=0.06)
    assert of.root.attrib["data-axis"] == key
    assert [e.get("class") for e in of.root.iter() if e.get("class") == "limits"] == ["limits"]


@pytest.mark.parametrize(("factor", "log"), [(1.0, False), (1.001, False), (24.9, False), (25.1, True), (1e7, True)])
def test_an_axis_is_logarithmic_where_costs_span_25_times(factor: float, log: bool) -> None:
    """Equal factors are equal distances from a span of 25 on; every axis has three ticks or more, all different."""
    costs = {"a": (2.0, 300.0, 0.02 * factor), "b": (3.0, 400.0, 0.02 * math.sqrt(factor)), "c": (4.0, 500.0, 0.02)}
    for picture in pictures(an_answer({"a": 3.0, "b": 2.0, "c": 1.0}, costs=costs)):
        for svg in (picture.wide, picture.narrow):
            of = Drawn(svg)
            for anchor in ("end", "middle"):
                assert len(set(of.ticks(anchor))) == len(of.ticks(anchor)) >= 3
    of = drawn(an_answer({"a": 3.0, "b": 2.0, "c": 1.0}, costs=costs), "size")
    assert of.root.attrib["data-s"].startswith("1 " if log else "0 ")
    nothing = with_values(an_answer(FIVE), "head", saved_bytes=Values(m=0.0))
    assert drawn(nothing, "size").root.attrib["data-s"].startswith("0 ")  # 0 has no logarithm
    if log:
        assert of.at[1][0] - of.at[2][0] == pytest.approx(of.at[2][0] - of.at[3][0], abs=0.2)


def test_methods_without_a_cost_are_not_drawn() -> None:
    """The base model, which was not trained, stands in no picture, and the picture says so."""
    answer = an_answer(
        {"lora": 17.3, "full": 16.8, "none": 14.1}, bases=("none",), open_=(("full", "none"),),
        costs={"lora": (65.0, 3500.0, 9.8), "full": (96.0, 5000.0, 538.0)},
    )  # fmt: skip
    for picture in pictures(answer):
        assert picture.lost == ("none",)
        assert set(Drawn(picture.wide).at) == {1, 2}
        assert not picture.tied


def test_without_costs_there_is_no_picture() -> None:
    """No method, or none with a cost, has no picture."""
    methods = (Method(name="a", kind="full", seeds=1, v={"score": Values(m=1.0)}),)
    assert pictures(an_answer({"a": 1.0}, methods=methods, pairs={})) == ()
    assert pictures(an_answer({"a": 1.0}, methods=(), pairs={})) == ()


# Labels and names


def references() -> list[tuple[str, Answer]]:
    """Return the answers of the published suites."""
    names = ("quickstart", "minilm", "faq", "regression", "chat")
    return [(name, answer_of(Results.load(REFERENCE / name))) for name in names]


def test_labels_of_the_published_suites_keep_clear() -> None:
    """No label covers a mark or another label, or leaves the drawing, in any picture of any size."""
    for suite, answer in references():
        for of in every_drawing(answer):
            width = float(of.root.attrib["viewBox"].split()[2])
            boxes = of.labels
            assert set(of.texts.values()) <= set(answer.by_name)
            for n, (left, top, right, bottom) in boxes.items():
                where = (suite, of.root.attrib["data-axis"], of.texts[n])
                assert left >= 0, where
                assert right <= width, where
                assert top >= 14, where
                for other, (x, y) in of.at.items():
                    apart = max(left - x, x - right, top - y, y - bottom)
                    assert apart >= 5, (*where, other)
                for other, box in boxes.items():
                    covers = min(right, box[2]) > max(left, box[0]) and min(bottom, box[3]) > max(top, box[1])
                    assert other == n or not covers, (*where, other)


def test_names_stand_at_few_methods_and_numbers_at_many() -> None:
    """Seven methods with short names are labelled by name; eight, or long names, by their number in the table."""
    seven = {f"m{i}": float(i) for i in range(7)}
    assert set(drawn(an_answer(seven)).texts.values()) == set(seven)
    assert set(drawn(an_answer(seven | {"m7": 7.0})).texts.values()) == set("12345678")
    assert set(drawn(an_answer({"a" * 21: 1.0, "b": 2.0})).texts.values()) == {"1", "2"}


@pytest.mark.parametrize("n", [1, 2, 7, 8, 20, 45])
def test_any_number_of_methods_is_drawn_alike_each_time(n: int) -> None:
    """Each method has one mark, linked to its fold, with values and verdict; the same answer gives the same bytes."""
    scores = {f"m{i}": 70 + 20 * math.sin(i * i) for i in range(n)}
    answer = an_answer(scores, open_=tuple((f"m{i}", f"m{i + 1}") for i in range(n - 1)))
    assert pictures(answer) == pictures(answer.model_copy())
    for of in every_drawing(answer):
        assert sorted(of.marks) == list(range(1, n + 1))
        for method in answer.methods:
            mark = of.marks[answer.number[method.name]]
            assert mark.attrib["href"] == f"#m-{answer.number[method.name]}"
            assert method.name in mark.attrib["aria-label"]
            assert f"accuracy {method.v['score'].m:.1f} %" in mark.attrib["aria-label"]
        if n > 1:
            assert "can't tell from" in of.marks[1].attrib["aria-label"]


def test_names_cannot_break_out_and_nothing_carries_a_style() -> None:
    """Names with markup stay text in labels and attributes; the page's policy allows no style attribute."""
    score = RMSE.model_copy(update={"title": HOSTILE, "unit": HOSTILE})
    answer = an_answer({HOSTILE: 0.5, "'><script>": 0.4}, open_=((HOSTILE, "'><script>"),), score=score)
    for picture in pictures(answer):
        for svg in (picture.wide, picture.narrow, standalone(picture.drawn)):
            assert "<b>" not in svg
            assert "<script" not in svg
            assert not re.search(r"\sstyle\s*=", svg)
        assert HOSTILE in Drawn(picture.wide).texts.values()


# A file of its own


def test_a_picture_of_its_own_needs_no_page(tmp_path: Path) -> None:
    """The file for Markdown is XML with size and colours of its own, marks and lines alike, and no link or variable."""
    made_records.write(tmp_path, made_records.sweep())
    for picture in pictures(answer_of(Results.load(tmp_path))):
        svg = standalone(picture.drawn)
        root = ET.fromstring(svg.encode())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert (root.attrib["width"], root.attrib["height"]) == tuple(root.attrib["viewBox"].split()[2:])
        assert "var(" not in svg
        assert "href" not in svg
        assert "currentColor" not in svg
        own = [e.get("class") for e in root.iter() if e.get("class") in {"dot", "hit", "lab"}]
        assert own == [
            e.get("class") for e in Drawn(picture.wide).root.iter() if e.get("class") in {"dot", "hit", "lab"}
        ]


# Charts, and files for papers


@pytest.fixture(scope="module")
def every_chart(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Return the pictures of a page, and one with hostile names."""
    folder = made_records.write(tmp_path_factory.mktemp("charts"), made_records.sweep(seeds=3), made_records.points)
    named = Axis(0, 2, HOSTILE, ((1.0, HOSTILE),))
    bad = Series(((1.0, 1.0),), "m1", "$\\frac{$ \u4e2d \u202e" + "x" * 300, marker="P")
    hostile = Picture(name="hostile", caption=HOSTILE, alt=HOSTILE, x=named, y=named, series=(bad,))
    return [hostile, *pictures_of(page_of(Results.load(folder)))]


def test_charts_show_the_numbers_of_the_tables(tmp_path: Path) -> None:
    """A row of seeds has the mean and its own interval, cut at the scale's end; a curve the mean over seeds."""
    results = Results.load(made_records.write(tmp_path, made_records.sweep(seeds=4), made_records.points))
    picture = charts.strip(results, "train_seconds")
    assert picture is not None
    for row, method in enumerate(results.methods):
        interval = results.interval(method, "train_seconds")
        assert interval is not None
        band, mean = (of for of in picture.segments if round((of.start[1] + of.end[1]) / 2) == row)
        assert (band.start[0], band.end[0]) == (interval.low, interval.high)
        assert mean.start[0] == mean.end[0] == interval.mean
        assert sorted(x for x, _ in picture.series[row].points) == sorted(
            results.shown("train_seconds")[method].values()
        )
    curve = charts.line_chart(results, "validation_loss", "Validation loss")
    assert curve is not None
    for of, method in zip(curve.series, results.methods, strict=True):
        own = [dict(zip(one.steps, one.values, strict=True)) for one in results.curves["validation_loss"][method]]
        for (step, mean), (low, high) in zip(of.points, of.band, strict=True):
            values = [one[int(step)] for one in own]
            assert mean == pytest.approx(fmean(values))
            assert (high - low) / 2 == pytest.approx(stdev(values))


@given(st.lists(st.floats(-1e99, 1e99), min_size=1, max_size=5), st.booleans(), st.floats(0, 0.2))
def test_axes_hold_their_values(values: list[float], log: bool, share: float) -> None:
    """Each value lies between the ends, and so do three ticks or more, in order, with texts."""
    log = log and min(values) > 1e-99
    made = axis("x", values, share=share, log=log, from_zero=True)
    slack = 1e-9 * (abs(made.low) + abs(made.high))
    assert made.low < made.high
    assert all(made.low - slack <= value <= made.high + slack for value in values)
    at = [value for value, _ in made.ticks]
    assert at == sorted(set(at))
    assert len(at) >= (1 if made.log else 3)


def test_nothing_leaves_its_picture(every_chart: list[Picture]) -> None:
    """On a page, on a phone and in a paper all lines, marks and starts of texts lie within the picture."""
    assert len({picture.name for picture in every_chart}) == len(every_chart) > 10
    for picture in every_chart:
        for width in (WIDE, NARROW):
            made = layout(picture, width)
            for shape in flat(made.shapes):
                assert all(-1 <= x <= width + 1 and -1 <= y <= made.height + 1 for x, y in shape.points), picture.name


def test_files_for_papers_are_a_column_wide_with_their_fonts(every_chart: list[Picture]) -> None:
    """3.3 inches, text that can be selected, names as they are; the same picture gives the same bytes."""
    for picture in every_chart[::4]:
        made = paper(picture, "pdf")
        assert made == paper(picture, "pdf")
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", made)
        assert box is not None
        assert float(box[1]) == pytest.approx(3.3 * 72, abs=0.5)
        assert b"/FontFile2" in made
        assert b"/Type3" not in made
    png = paper(every_chart[0], "png")
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == pytest.approx(3.3 * DPI, abs=4)


def test_each_picture_of_the_page_is_a_file(tmp_path: Path) -> None:
    """`--format pdf,png` writes those that `md` writes as SVG, by the same names; another format is refused."""
    made_records.write(tmp_path / "runs", made_records.sweep(["lora", "full"], 2))
    call = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--format"]
    assert CliRunner().invoke(main, [*call, "md,pdf,png"]).exit_code == 0
    kinds = [{path.stem for path in (tmp_path / "out/figures").glob(f"*.{kind}")} for kind in ("svg", "pdf", "png")]
    assert kinds[0] == kinds[1] == kinds[2]
    assert "answer_time" in kinds[0]
    refused = CliRunner().invoke(main, [*call, "gif"])
    assert "--format gif: choose from html, md, csv, tex, pdf, png, peft" in refused.output
