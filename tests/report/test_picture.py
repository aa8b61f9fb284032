"""Behaviour: the picture shows each method where its numbers are, and a line over those that
can't be told apart.
"""

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import made_records
from helpers.answers import RMSE, an_answer
from helpers.commands import called
from hpml_bench.judge.from_results import answer_of
from hpml_bench.judge.results import Results
from hpml_bench.judge.summary import PageSummary
from hpml_bench.page.answer.screen import pictures
from hpml_bench.page.pictures.charts import axis
from hpml_bench.page.pictures.drawn import DPI, flat, paper, svg
from hpml_bench.page.pictures.layout import NARROW, WIDE, Shape, layout
from hpml_bench.page.render import page_of, pictures_of
from hpml_bench.plugins.picture import Axis, Picture, Series

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
FIVE = {"full": 79.0, "lora": 78.9, "prompt_tuning": 76.0, "adapter": 75.3, "head": 72.5}
HOSTILE = '<b>&"x"</b>'
SIZES = (WIDE, NARROW)


def shapes_of(answer: PageSummary, width: float = WIDE, key: str = "") -> list[tuple[Shape, ...]]:
    """Return the shapes of an answer's pictures, or of that of one cost."""
    return [layout(of, width).shapes for of in pictures(answer) if key in ("", of.x.key)]


def marks_of(shapes: tuple[Shape, ...], css: str) -> dict[int, Shape]:
    """Return the dots or labels of the marks by the methods' numbers."""
    return {
        of.mark.number: inner for of in shapes if of.mark for inner in of.inner if inner.css == css
    }


def ticks(shapes: tuple[Shape, ...], anchor: str) -> list[str]:
    """Return the texts of an axis: `end` of the vertical one, `middle` of the other."""
    return [of.text for of in shapes if of.css == "tick" and of.anchor == anchor]


# Places of marks


@pytest.mark.parametrize("key", ["time", "memory", "size"])
@pytest.mark.parametrize("score", [None, RMSE], ids=["higher", "lower"])
def test_the_scale_lets_a_script_find_every_mark(key: str, score: Any) -> None:
    """From data-s alone, values lead to their marks, better ones higher up and cheaper ones
    further left.
    """
    answer = an_answer(FIVE, score=score) if score else an_answer(FIVE)
    root = ET.fromstring(next(svg(of) for of in pictures(answer) if of.x.key == key))
    log, x0, x1, left, right, y0, y1, top, bottom, sign = map(float, root.attrib["data-s"].split())
    assert (left < right, top < bottom, sign) == (True, True, -1 if score else 1)
    cost = next(axis for axis in answer.axes if axis.key == key)
    scale = math.log if log else float
    dots = {
        of.attrib["data-m"]: next(e for e in of if e.get("class") == "dot")
        for of in root
        if "data-m" in of.attrib
    }
    for method in answer.methods:
        x = left + (scale(method.values[cost.id].mean) - scale(x0)) / (scale(x1) - scale(x0)) * (
            right - left
        )
        share = (method.values["score"].mean - y0) / (y1 - y0)
        y = top + (1 - share if sign > 0 else share) * (bottom - top)
        dot = dots[str(answer.number[method.name])]
        assert (float(dot.attrib["cx"]), float(dot.attrib["cy"])) == pytest.approx((x, y), abs=0.06)
    assert root.attrib["data-axis"] == key
    assert [e.get("class") for e in root.iter() if e.get("class") == "limits"] == ["limits"]


@pytest.mark.parametrize(
    ("factor", "log"), [(1.0, False), (1.001, False), (24.9, False), (25.1, True), (1e7, True)]
)
def test_an_axis_is_logarithmic_where_costs_span_25_times(factor: float, log: bool) -> None:
    """Equal factors are equal distances from a span of 25 on; every axis has three ticks or
    more, all different.
    """
    costs = {
        "a": (2.0, 300.0, 0.02 * factor),
        "b": (3.0, 400.0, 0.02 * math.sqrt(factor)),
        "c": (4.0, 500.0, 0.02),
    }
    answer = an_answer({"a": 3.0, "b": 2.0, "c": 1.0}, costs=costs)
    for shapes in (of for width in SIZES for of in shapes_of(answer, width)):
        for shown in (ticks(shapes, "end"), ticks(shapes, "middle")):
            assert len(set(shown)) == len(shown) >= 3
    assert next(of.x.log for of in pictures(answer) if of.x.key == "size") == log
    if log:
        a, b, c = (
            dot.points[0][0]
            for _, dot in sorted(marks_of(shapes_of(answer, key="size")[0], "dot").items())
        )
        assert a - b == pytest.approx(b - c)


def test_an_axis_is_logarithmic_where_many_costs_crowd() -> None:
    """Half of them in 2 % of a linear axis; where a cost is 0, which has no logarithm, it never
    is.
    """
    crowd = {f"m{at}": 101 + 2.0 * at for at in range(8)} | {"far": 900.0}
    assert all(
        of.x.log
        for of in pictures(an_answer(crowd, costs={name: (of,) * 3 for name, of in crowd.items()}))
    )
    nothing = an_answer({"a": 3.0, "b": 2.0}, costs={"a": (1.0, 1.0, 0.0), "b": (2.0, 2.0, 9.0)})
    assert not any(of.x.log for of in pictures(nothing))


@pytest.mark.parametrize("suite", ["quickstart", "minilm", "faq"])
def test_labels_of_the_published_suites_keep_clear(suite: str) -> None:
    """No label covers a mark or another label, or leaves the drawing, in any picture of any
    size.
    """
    answer = answer_of(Results.load(REFERENCE / suite))
    for width in SIZES:
        for shapes in shapes_of(answer, width):
            labels, dots, boxes = marks_of(shapes, "lab"), marks_of(shapes, "dot"), {}
            assert {label.text for label in labels.values()} <= set(answer.by_name)
            for (
                n,
                label,
            ) in labels.items():  # in a font that is 6.6 pixels a character wide and 12 high
                (x, y), length = label.points[0], 6.6 * len(label.text)
                left = x - {"start": 0.0, "middle": length / 2, "end": length}[label.anchor]
                boxes[n] = (left, y - 10, left + length, y + 2)
            for n, (left, top, right, bottom) in boxes.items():
                where = (width, labels[n].text)
                assert left >= 0, where
                assert right <= width, where
                assert top >= 14, where
                for x, y in (dot.points[0] for dot in dots.values()):
                    assert max(left - x, x - right, top - y, y - bottom) >= 5, where
                for west, north, east, south in (box for other, box in boxes.items() if other != n):
                    assert min(right, east) <= max(left, west) or min(bottom, south) <= max(
                        top, north
                    ), where


# Charts, and files for papers


@pytest.fixture(scope="module")
def every_chart(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Return the pictures of a page, and one with hostile names."""
    folder = made_records.write(
        tmp_path_factory.mktemp("charts"), made_records.sweep(seeds=3), made_records.points
    )
    named = Axis(0, 2, HOSTILE, ((1.0, HOSTILE),))
    bad = Series(((1.0, 1.0),), "m1", "$\\frac{$ \u4e2d \u202e" + "x" * 300, marker="P")
    hostile = Picture(name="hostile", caption=HOSTILE, alt=HOSTILE, x=named, y=named, series=(bad,))
    return [hostile, *pictures_of(page_of(Results.load(folder)))]


@given(st.lists(st.floats(-1e99, 1e99), min_size=1, max_size=5), st.booleans(), st.floats(0, 0.2))
def test_axes_hold_their_values(values: list[float], log: bool, share: float) -> None:
    """Each value lies between the ends, and so do three ticks or more, in order, with texts."""
    log = log and min(values) > 1e-99
    made = axis("x", values, share=share, log=log, within=(0.0,))
    slack = 1e-9 * (abs(made.low) + abs(made.high))
    assert made.low < made.high
    assert all(made.low - slack <= value <= made.high + slack for value in values)
    at = [value for value, _ in made.ticks]
    assert at == sorted(set(at))
    assert len(at) >= (1 if made.log else 3)


def test_nothing_leaves_its_picture(every_chart: list[Picture]) -> None:
    """On a page, on a phone and in a paper all lines, marks and starts of texts lie within the
    picture.
    """
    assert len({picture.name for picture in every_chart}) == len(every_chart) > 10
    for picture in every_chart:
        for made in (layout(picture, width) for width in SIZES):
            points = [point for shape in flat(made.shapes) for point in shape.points]
            assert all(
                -1 <= x <= made.frame.width + 1 and -1 <= y <= made.height + 1 for x, y in points
            ), picture.name


def test_files_for_papers_are_a_column_wide_with_their_fonts(every_chart: list[Picture]) -> None:
    """3.3 inches, text that can be selected, names as they are; the same picture gives the same
    bytes.
    """
    for picture in every_chart[::16]:
        made = paper(picture, "pdf")
        assert made == paper(picture, "pdf")
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", made)
        assert box
        assert float(box[1]) == pytest.approx(3.3 * 72, abs=0.5)
        assert (b"/FontFile2" in made, b"/Type3" in made) == (True, False)
    png = paper(every_chart[0], "png")
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == pytest.approx(3.3 * DPI, abs=4)


def test_each_picture_of_the_page_is_a_file(tmp_path: Path) -> None:
    """`--format pdf` writes those that `md` writes as SVG, by the same names; another format is
    refused.
    """
    made_records.write(tmp_path / "runs", made_records.sweep(["lora", "full"], 2))
    words = ("report", tmp_path / "runs", "--out", tmp_path / "out", "--format")
    called(*words, "md,pdf")
    kinds = [
        {path.stem for path in (tmp_path / "out/figures").glob(f"*.{kind}")}
        for kind in ("svg", "pdf")
    ]
    assert kinds[0] == kinds[1]
    assert "answer_time" in kinds[0]
    refused = called(*words, "gif", status=2).output
    assert "--format gif: choose from html, md, csv, tex, pdf, png, peft" in refused
