"""Published figures of the same methods next to ours, and the reasons why some may not be
compared.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import Field

from hpml_bench import statistics
from hpml_bench.judge.results import Results
from hpml_bench.page.tables import quantity_of, section_of, spreads, table
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.numbers import MISSING, Cell, cell, limits, number, sentence_list
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import DatasetSpec, MethodSpec
from hpml_bench.suite.suite import packaged

order = 100
question = "setup"
about = "published figures of the same methods"
METRICS = (
    "test_accuracy",
    "test_score",
    "train_loss",
    "train_seconds",
    "samples_per_second",
    "peak_memory_mb",
    "grad_norm",
    "forgetting",
    "trainable_parameters",
)


class Published(Frozen):
    """One method's published figures, in our metrics' units."""

    title: str
    method: str
    """The file in `hpml_bench/builtin/methods` that is the same method."""
    type: str | None = None
    """Type of the method peft."""
    lr: float | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    """PEFT's options that differ from its defaults; a test compares the suite's with them."""
    figures: dict[str, float]


class Reference(Frozen):
    """A publication: a file of `benchmarks/reference`."""

    title: str
    source: str
    setting: dict[str, str]
    datasets: tuple[DatasetSpec, ...]
    """Data sets beside whose results it stands, by name and some of their options."""
    scorer: str | None = None
    """Scorer of its answers; shown beside suites with this scorer only, or None for all."""
    test_rows: int | None = None
    """Rows of its score, where that is a share of right ones, for an interval."""
    methods: tuple[Published, ...]
    caveats: tuple[str, ...]


def load(name: str = "document") -> Reference:
    path = packaged("reference", "benchmarks/reference") / f"{name}.yaml"
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Reference.model_validate(content)


def section(results: Results) -> Section | None:
    """Return a publication's table with ours beneath each method; nothing where none has our
    methods and score.
    """
    ours = {label: _kind(results.runs(label)[0].spec.method) for label in results.methods}
    settings = results.reference.spec.settings
    # of any revision of the data set; options that a publication doesn't name may differ
    options = {key: str(value).partition("@")[0] for key, value in settings.dataset.options.items()}
    for path in sorted(packaged("reference", "benchmarks/reference").glob("*.yaml")):
        reference = load(path.stem)
        of_data = (there for there in reference.datasets if there.name == settings.dataset.name)
        same_data = any(there.options.items() <= options.items() for there in of_data)
        alike = same_data and reference.scorer in {None, settings.task.options.get("scorer")}
        shared = {_kind(published) for published in reference.methods} & set(ours.values())
        scored = any(results.quality in published.figures for published in reference.methods)
        if shared and scored and alike:
            notes = Text(sentences=(*_differences(reference, results), *reference.caveats))
            return section_of(
                "document", f"Beside {reference.title}", _table(reference, results, ours), notes
            )
    return None


def _kind(method: MethodSpec | Published) -> tuple[str, str | None]:
    named = method.type if isinstance(method, Published) else method.options.get("type")
    return method.method, str(named).upper() if named else None


def _table(
    reference: Reference, results: Results, ours: Mapping[str, tuple[str, str | None]]
) -> Table:
    shown_there = {name for published in reference.methods for name in published.figures}
    defined = [name for name in METRICS if name in results.definitions and name in shown_there]
    quantities = [quantity_of(results, name) for name in defined]
    rows: list[list[Cell]] = []
    for published in reference.methods:
        figures = published.figures
        known: list[Cell] = []
        for quantity in quantities:
            value = figures.get(quantity.metric.name)
            scaled = None if value is None else value * quantity.scale
            of_rows = reference.test_rows if quantity.metric.name == results.quality else None
            known.append((_as_published(scaled, quantity.scale, of_rows), scaled))
        samples = _samples(figures)
        consumed: Cell = None if samples is None else (f"≈ {number(samples, 'd')}", samples)
        rows.append([published.title, reference.title, *known, consumed])
        for label in (label for label, kind in ours.items() if kind == _kind(published)):
            used = [record.consumed.samples for record in results.runs(label) if record.consumed]
            trained = cell(used[0] if used else None, "d")
            rows.append([label, "this suite", *spreads(results, label, quantities), trained])
    columns = (
        "method",
        "From",
        *(quantity.header for quantity in quantities),
        "Samples trained on",
    )
    notes = [
        (
            f"Source: {reference.source}. Its samples are computed from its own figures: "
            f"samples/s × runtime."
        )
    ]
    return table("document", "Published figures and ours; not one comparison", columns, rows, notes)


def _as_published(value: float | None, scale: float, rows: int | None) -> str:
    """Return a figure as published, with Wilson's interval where it is a share of rows."""
    if value is None:
        return MISSING
    if rows is None:
        return f"{value:,.10g}"
    low, high = statistics.share_interval(round(value / scale * rows) / rows, rows)
    return f"{value:,.10g} {limits(scale * low, scale * high, '.1f')}"


def _samples(figures: Mapping[str, float]) -> float | None:
    speed, seconds = figures.get("samples_per_second"), figures.get("train_seconds")
    return None if speed is None or seconds is None else speed * seconds


def _differences(reference: Reference, results: Results) -> Iterator[str]:
    """Yield whether a publication's budgets, samples/s x runtime, differ, and what it did
    otherwise than our runs.
    """
    budgets = {
        p.title: samples for p in reference.methods if (samples := _samples(p.figures)) is not None
    }
    if budgets and max(budgets.values()) > 1.02 * min(budgets.values()):
        given = sentence_list(
            [f"{round(n, -3):,.0f} samples for {title}" for title, n in budgets.items()]
        )
        unequal = (
            "the training budgets were not equal for all, so its runtimes and accuracies do not "
            "compare all"
        )
        yield f"Samples/s × runtime of {reference.title} gives {given}: {unequal} methods."
    settings, there = results.reference.spec.settings, reference.setting
    here = {"model": settings.backbone, "task": settings.dataset.name}
    if named := [
        f"{key} {there[key]} there, {value} here" for key, value in here.items() if key in there
    ]:
        also = "hardware and settings differ or are not stated there"
        yield f"Do not compare its numbers with ours either: {'; '.join(named)}; {also}."
