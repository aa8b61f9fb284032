"""Any suite, record or point: a valid result, or one sentence. Never a traceback."""

import copy
import json
import math
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import made_records
from hpml_bench.page import export
from hpml_bench.page.pictures.drawn import svg
from hpml_bench.page.render import all_sections, load
from hpml_bench.page.tables import table
from hpml_bench.records.files import RECORD
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import digests_of, load_record, load_records
from hpml_bench.records.points import read_points
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.suite import Suite, load_suite
from hpml_bench.suite.yaml import parse
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import for_terminal, sanitize

settings.register_profile(
    "random", database=None, deadline=None, print_blob=True, max_examples=2000
)
# the same few each time, or many others (tox -e soak)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))
EXAMPLES = settings.default.max_examples
TESTS = settings.get_profile("tests").max_examples


def examples(part: float) -> int:
    """Return a part of the profile's examples, for what takes long; of a soak's three times as
    large a part.
    """
    return int(EXAMPLES * part if EXAMPLES == TESTS else EXAMPLES * min(1, 3 * part))


within_a_test = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
texts = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "lora",
        "path:\x00",
        "path:~nobody/x",
        "hub:a/b",
        "wheel:x",
        "../..",
        "*",
        "1e999",
        "\ud800",
        "<b>",
        "\x1b[1m",
    ]
)
numbers = (
    st.integers() | st.sampled_from([10**30, -(10**30), 2**63, 0, -1]) | st.floats() | st.booleans()
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    leaves = st.none() | texts | leaves
    return st.recursive(
        leaves,
        lambda of: st.lists(of, max_size=3) | st.dictionaries(texts, of, max_size=3),
        max_leaves=8,
    )


values = nested(numbers)


def one_sentence(error: Exception) -> None:
    """Fail unless an error is one for the user: a line of some hundred characters."""
    assert isinstance(error, UserError)
    assert str(error).strip()
    assert len(str(error).splitlines()) == 1, str(error)
    assert len(str(error)) < 500, str(error)


def changed(value: Any, place: float, new: Any, remove: bool) -> Any:
    """Return a copy of nested data with one place, chosen by a number in [0, 1), replaced,
    removed or added to.
    """
    value = copy.deepcopy(value)
    places = list(_places(value))
    holder, key = places[int(place * len(places))]
    if remove and isinstance(holder, dict):
        holder.pop(key, None)
    else:
        holder[key] = new
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)
    if isinstance(value, dict):
        yield value, "added"


share = st.floats(0, 1, exclude_max=True)

# Suites

SUITE = {
    "name": "s",
    "description": "d",
    "seeds": 2,
    "settings": {
        "backbone": "embedded:newswire-gpt2",
        "dataset": {"name": "newswire", "options": {"own_share": 0.5}},
        "steps": 4,
        "betas": [0.9, 0.99],
        "global_batch": 8,
        "device": "cpu",
        "clip_norm": None,
    },
    "methods": {
        "lora": {"lr": 1e-3, "options": {"r": 4}},
        "second": {"method": "head"},
        "peft:IA3": {},
    },
}


def use(name: str, overrides: tuple[str, ...] = ()) -> Suite | None:
    """Do with a suite what a sweep does before it starts a process; None where it was refused in
    one sentence.
    """
    try:
        suite = load_suite(name, overrides)
        if len(suite.methods) * suite.seeds < 50:
            assert all(run.run_id for run in suite.runs())
    except UserError as error:
        one_sentence(error)
        return None
    return suite


def comes_back(suite: Suite) -> bool:
    """Tell whether a suite is the same after it was written beside its runs and read."""
    text = suite.model_dump_json()
    return Suite.model_validate_json(text).model_dump_json() == text


@within_a_test
@given(place=share, new=values, remove=st.booleans())
def test_any_change_of_a_suite(tmp_path: Path, place: float, new: Any, remove: bool) -> None:
    """A valid suite in which one value is any other, missing or of an unknown name: refused, or
    a suite like others.
    """
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(changed(SUITE, place, new, remove)))  # JSON is YAML
    suite = use(str(path))
    assert suite is None or comes_back(suite)


written = values.map(json.dumps).map(str.encode) | st.binary(max_size=80)

KEYS = "steps name methods methods.lora methods.lora.options.r task.options dataset.options a.b"
keys = st.text("abc.settingsmethodslora", max_size=20) | st.sampled_from(KEYS.split())


@given(key=keys, value=st.text(max_size=20) | values.map(json.dumps))
def test_any_override(key: str, value: str) -> None:
    """`--set` with any key and any value: refused, or a suite like others."""
    suite = use("quickstart", (f"{key}={value}",))
    assert suite is None or comes_back(suite)


@given(content=nested(st.integers() | st.booleans()))
def test_what_is_plain_is_read_as_it_was(content: Any) -> None:
    """The limits of our YAML take nothing from what a suite may hold."""
    text = json.dumps(content)  # JSON is YAML
    if "ud800" in text.lower():
        with pytest.raises(UserError):
            parse(text, "here")
    else:
        assert repr(parse(text, "here")) == repr(content)


# Records


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder of seven runs: three seeds, from which pairs have verdicts, and a
    failed run.
    """
    records = [
        *made_records.sweep(["lora", "full"], 3),
        made_records.failed("head", 0, "failed", "why"),
    ]
    return made_records.write(tmp_path_factory.mktemp("runs"), records, rows=50)


def recommit(run: Path) -> None:
    """Give a run's record the digests of the files that now lie beside it: as if it had written
    them.
    """
    RunFolder(run).commit(load_record(run / RECORD).model_copy(update={"files": digests_of(run)}))


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Put a run's file, and its record, back as they were."""
    before = {one: one.read_bytes() for one in (path, path.with_name(RECORD))}
    try:
        yield
    finally:
        for one, content in before.items():
            one.write_bytes(content)


def use_records(folder: Path) -> None:
    try:
        results = load(folder)
        sections = all_sections(results)
    except UserError as error:
        one_sentence(error)
        return
    for section in sections:
        for block in section.blocks:
            if hasattr(block, "rows"):
                export.csv_text(block), export.latex_table(block), export.markdown_table(block)


@settings(within_a_test, max_examples=examples(0.25))
@given(place=share, new=values, remove=st.booleans())
def test_any_change_of_a_record(runs: Path, place: float, new: Any, remove: bool) -> None:
    """A record in which one value is any other: believed where it may be so, else told and left
    out.
    """
    path = min(runs.glob("lora*/run.json"))
    with changing(path):
        path.write_text(json.dumps(changed(json.loads(path.read_text()), place, new, remove)))
        found = load_records(runs)
        assert len(found.records) + len(found.problems) == 7
        assert all(len(problem) < 1000 for problem in found.problems)
        use_records(runs)


@given(number=st.floats() | st.integers(-(2**62), 2**62))
def test_a_record_is_read_as_it_was_written(number: float) -> None:
    """Whatever a metric is, JSON brings it back; what is no number is none."""
    before = made_records.record(metrics={"a": float(number)})
    after = RunRecord.model_validate_json(before.model_dump_json())
    expected = float(number) if math.isfinite(number) else None
    assert after.metrics["a"] == expected or not math.isfinite(number)


# Points

POINT = {"metric": "train_loss", "step": 3, "value": 0.5}
lines = st.one_of(
    st.builds(
        lambda place, new, remove: json.dumps(changed(POINT, place, new, remove)),
        share,
        values,
        st.booleans(),
    ),
    st.builds(json.dumps, values),
    st.text(max_size=30),
    st.builds(
        lambda step, value: json.dumps(POINT | {"step": step, "value": value}),
        st.integers(),
        st.floats(),
    ),
)


@settings(within_a_test, max_examples=examples(0.25))
@given(content=st.lists(lines, max_size=12), torn=st.binary(max_size=12))
def test_any_lines_as_points(runs: Path, content: list[str], torn: bytes) -> None:
    """Points are what is a point, the rest is left out; a run whose times they don't give is set
    apart.
    """
    place = min(runs.glob("lora*/points.jsonl"))
    with changing(place):
        place.write_bytes("\n".join(content).encode(errors="surrogatepass") + torn)
        for point in read_points(place.parent):
            assert isinstance(point.metric, str)
            assert abs(point.step) < 2**63
        recommit(place.parent)
        results = load(runs)
        assert len(results.compared) + results.left_out.excluded_runs == 6
        for curves in results.curves.values():
            for by_seed in curves.values():
                assert all(math.isfinite(value) for curve in by_seed for value in curve.values)
        use_records(runs)


# Predictions

large = st.sampled_from([2**31, 2**40, 2**63 - 1, -(2**62)])
cells = st.integers(-3, 60) | large | st.floats() | st.none() | st.booleans() | texts
column = cells | st.lists(cells, min_size=50, max_size=50)
columns = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("index", "reference", "prediction", "loss"), column)
)


@settings(within_a_test, max_examples=examples(0.25))
@given(new=columns, rows=st.integers(0, 50), again=st.integers(0, 3))
def test_any_predictions(runs: Path, new: dict[str, Any], rows: int, again: int) -> None:
    """Rows of any content: the run is compared where they are all rows once and give its scores,
    else set apart.
    """
    import pandas as pd

    path = min(runs.glob("lora*/predictions.parquet"))
    with changing(path):
        try:
            frame = pd.read_parquet(path).assign(**new)
            pd.concat([frame.head(rows), frame.head(again)]).to_parquet(path, index=False)
        except (
            ValueError,
            TypeError,
            OverflowError,
        ):  # of mixed types, or half a character: no file can hold it
            return
        recommit(path.parent)
        results = load(runs)
        assert len(results.compared) + results.left_out.excluded_runs == 6
        assert not results.left_out.problems
        whole = not new and rows == 50 and not again
        assert not whole or len(results.compared) == 6
        use_records(runs)


@settings(within_a_test, max_examples=examples(0.05))
@given(
    content=st.lists(
        st.tuples(st.integers(-(2**62), 2**62), st.floats(-1e99, 1e99)), min_size=1, max_size=6
    )
)
def test_any_points_can_be_drawn(
    runs: Path, tmp_path: Path, content: list[tuple[int, float]]
) -> None:
    """Steps and values of any size make a chart that can be drawn."""
    from hpml_bench.page.pictures.charts import line_chart

    copied = tmp_path / "runs"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(runs, copied)
    for path in copied.glob("*/points.jsonl"):
        times = [
            line for line in path.read_text().splitlines(keepends=True) if '"step_seconds"' in line
        ]
        losses = [
            json.dumps(POINT | {"step": step, "value": value}) + "\n" for step, value in content
        ]
        path.write_text("".join((*times, *losses)))
        recommit(path.parent)
    picture = line_chart(load(copied), "train_loss", "loss")
    assert ET.fromstring(svg(picture)).tag.endswith("svg")


# Text


@given(text=st.text())
def test_plain_text_is_plain(text: str) -> None:
    """One line of printable characters, the same when made plain again."""
    for made in (sanitize(text), for_terminal(text)):
        assert made.isprintable()
    assert sanitize(sanitize(text)) == sanitize(text)
    assert "::e" not in for_terminal("::e" + text)[:3]


@given(
    cells=st.lists(st.lists(st.text(max_size=20), min_size=2, max_size=2), min_size=1, max_size=3)
)
def test_tables_of_any_text_hold_together(cells: list[list[str]]) -> None:
    """As many cells a row in Markdown and CSV as there are columns."""
    made = table("t", "c", ["a", "b"], cells)
    for line in export.markdown_table(made).splitlines():
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 3
    import csv

    assert {len(row) for row in csv.reader(export.csv_text(made).splitlines())} == {2}


signs = st.text("[]{}:,-?&*!|>'\"%@` \n\tab0.~<=#", max_size=40)  # of YAML


@within_a_test
@given(content=written | signs.map(str.encode))
def test_anything_as_a_suite(tmp_path: Path, content: bytes) -> None:
    """A file that holds any structure, bytes, or YAML's own signs, is refused."""
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    assert use(str(path)) is None


@within_a_test
@given(content=written)
def test_any_bytes_as_a_record(tmp_path: Path, content: bytes) -> None:
    """A file that holds anything is a problem in words."""
    place = tmp_path / "lora-s0-0123456789"
    place.mkdir(exist_ok=True)
    (place / RECORD).write_bytes(content)
    found = load_records(tmp_path)
    assert found.records == ()
    assert len(found.problems) == 1
    use_records(tmp_path)


@settings(within_a_test, max_examples=examples(0.2))
@given(content=st.binary(max_size=80), keep=st.floats(0, 1))
def test_any_bytes_as_predictions(runs: Path, content: bytes, keep: float) -> None:
    """A file that is no table, or torn, is no predictions: the run is set apart and the rest
    reported.
    """
    path = min(runs.glob("lora*/predictions.parquet"))
    with changing(path):
        before = path.read_bytes()
        path.write_bytes(before[: int(keep * len(before))] + content)
        recommit(path.parent)
        results = load(runs)
        assert len(results.compared) + results.left_out.excluded_runs == 6
