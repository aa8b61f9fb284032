"""One selection for every section: what is set apart enters no number of a page, whatever did
it; what is flagged.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_sections import load, said, with_metrics

from helpers import made_records
from helpers.made_records import sweep
from hpml_bench.judge.judged import TIME
from hpml_bench.judge.results import Results
from hpml_bench.page.render import all_sections, facts
from hpml_bench.plugins.blocks import Fold
from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD
from hpml_bench.records.load import digests_of, load_record
from hpml_bench.records.run import RunRecord
from hpml_bench.select.comparability import machine_of
from hpml_bench.suite.settings import TaskSpec

PARTS = {"first_step_seconds": 1.0, "evaluation_seconds": 0.5, "inference_seconds": 0.5}
METHODS = ("lora", "full", "adapter", "head")
SEEDS = 4


def runs(ranks: int, methods: tuple[str, ...]) -> list[RunRecord]:
    """Return a sweep on so many ranks, with what the time budget needs."""
    chosen = made_records.SETTINGS.model_copy(update={"world_size": ranks})
    made = made_records.sweep(methods, SEEDS, settings=chosen)
    return [
        r.model_copy(
            update={"metrics": r.metrics | PARTS | {"communication_ms": 1.0 + r.spec.seed}}
        )
        for r in made
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of four methods x four seeds on two ranks, and of two methods on one rank."""
    folder = tmp_path_factory.mktemp("whole") / "example"
    return made_records.write(folder, [*runs(2, METHODS), *runs(1, ("lora", "full"))])


# What sets a run apart

Edit = Callable[[Path], None]


def changed(**fields: Callable[[RunRecord], Any]) -> Edit:
    """Return an edit of a run's record, by what fields become."""

    def edit(run: Path) -> None:
        record = load_record(run / RECORD)
        update = {name: make(record) for name, make in fields.items()}
        made_records.rewrite(run, record.model_copy(update=update))

    return edit


def answered(change: Callable[[pd.DataFrame], pd.DataFrame], *, known: bool = True) -> Edit:
    """Return an edit of a run's predictions, of which the record is given the digest, or isn't."""

    def edit(run: Path) -> None:
        change(pd.read_parquet(run / PREDICTIONS)).to_parquet(run / PREDICTIONS, index=False)
        if known:
            changed(files=lambda _: digests_of(run))(run)

    return edit


def scored(name: str, value: float | None = None) -> Edit:
    """Return an edit of one recorded score."""
    return changed(metrics=lambda record: record.metrics | {name: value})


def more_points(run: Path) -> None:
    """Append a point that the record's digest doesn't know."""
    with (run / POINTS).open("a") as file:
        file.write('{"metric":"train_loss","step":101,"value":0.001}\n')


OTHER = made_records.SETTINGS.model_copy(update={"train_samples": 999})
other_protocol = changed(
    spec=lambda of: of.spec.model_copy(update={"settings": OTHER}), protocol_id=lambda _: "f" * 12
)
other_consumption = changed(
    consumed=lambda of: (
        of.consumed and of.consumed.model_copy(update={"steps": 90, "samples": 1440})
    )
)
failed_check = changed(
    checks=lambda of: tuple(check.model_copy(update={"passed": False}) for check in of.checks)
)
no_predictions = lambda run: (run / PREDICTIONS).unlink()  # noqa: E731
not_ok = changed(status=lambda _: "failed")
no_digest = changed(
    files=lambda record: {name: of for name, of in record.files.items() if name != PREDICTIONS}
)
turned = lambda frame: frame.assign(prediction=(frame.prediction + (frame.index <= 20)) % 4)  # noqa: E731
unknown = answered(turned, known=False)
EDITS = (
    other_protocol,
    other_consumption,
    failed_check,
    no_predictions,
    no_digest,
    unknown,
    answered(lambda frame: frame.head(0)),
    answered(lambda frame: frame.assign(prediction="World")),
    answered(turned),
    answered(lambda frame: frame.assign(loss=frame.loss + 0.01)),
    scored("test_accuracy", 0.5),
    scored("test_macro_f1"),
    scored("test_loss"),
    more_points,
    not_ok,
)


def page(folder: Path) -> dict[str, Any]:
    """Return all that sections show, but those on what went wrong: cells, values, notes,
    sentences, figures.
    """
    shown: dict[str, Any] = {}
    for section in all_sections(Results.load(folder)):
        for number, block in enumerate(section.blocks if section.question != "wrong" else ()):
            content = block.model_dump(mode="json")
            if isinstance(block, Fold):
                content["about"] = re.sub(r"; \d+ (runs? failed|of \d+ seeds)$", "", block.about)
            content["notes"] = [
                n for n in content.get("notes", ()) if not n.startswith("No comparable run")
            ]
            shown[f"{section.slug} {number}"] = content
    return shown


def copied(whole: Path, folder: Path) -> Path:
    """Return a copy of the folder of results."""
    return shutil.copytree(whole, folder / "example")


@pytest.mark.parametrize("first", range(0, len(EDITS), SEEDS))
def test_each_edit_sets_a_run_apart(whole: Path, tmp_path: Path, first: int) -> None:
    """Every edit, four to a page, each of another seed and method: the page is that without
    them, to the last digit.
    """
    here, there = copied(whole, tmp_path / "a"), copied(whole, tmp_path / "b")
    chosen = {
        r.spec.seed: r.run_id
        for r in runs(2, METHODS)
        if r.spec.method.name == METHODS[r.spec.seed]
    }
    edits = EDITS[first : first + SEEDS]
    for seed, edit in enumerate(edits):
        edit(here / chosen[seed])
        shutil.rmtree(there / chosen[seed])
    assert page(here) == page(there)
    of = [Results.load(folder).left_out for folder in (here, there)]
    edited, without = (
        left.excluded_runs + len(left.unfinished) + len(left.problems) for left in of
    )
    assert edited == without + len(edits), "they are counted as left out"


@pytest.mark.parametrize("renamed", [False, True])
def test_of_two_records_neither_counts(whole: Path, tmp_path: Path, renamed: bool) -> None:
    """A run that is there twice, as a copied folder or of a renamed suite, counts in neither;
    both are named.
    """
    here, there = copied(whole, tmp_path / "a"), copied(whole, tmp_path / "b")
    run = next(
        r for r in runs(2, METHODS) if (r.spec.method.name, r.spec.seed) == ("full", 2)
    ).run_id
    twin = shutil.copytree(here / run, here / f"{run}-backup")
    if renamed:
        content = json.loads((twin / RECORD).read_text())
        content["spec"]["suite"] = "another"
        (twin / RECORD).write_text(json.dumps(content))
    shutil.rmtree(there / run)
    assert page(here) == page(there)
    why = f"2 records of one method, seed and protocol, so that none counts: {run}, {run}-backup"
    reasons = apart(Results.load(here))
    assert why in reasons[run]
    assert reasons[f"{run}-backup"] == reasons[run]
    assert facts(Results.load(here))["Runs"] == "15 compared, 7 on other ranks, 3 set apart"


ELSEWHERE = {
    "fingerprint": "another",
    "python": "3.13.0",
    "system": "Linux-6.1",
    "kernel": "6.1",
    "driver": "570.1",
    "process": {"MALLOC_TOP_PAD_": "0"},
    "threads": {"intra_op": 9},
    "packages": made_records.ENVIRONMENT["packages"] | {"numpy": "9.9"},  # type: ignore[operator]
}


@pytest.mark.parametrize("item", ELSEWHERE)
def test_costs_depend_on_machine_and_versions(item: str) -> None:
    """Each of these makes another environment, between which costs aren't compared."""
    moved = made_records.record(environment=made_records.ENVIRONMENT | {item: ELSEWHERE[item]})
    assert machine_of(moved) != machine_of(made_records.record())


def test_the_head_counts_what_is_compared(whole: Path, tmp_path: Path) -> None:
    """Beside the compared runs stand those set apart, those that failed, and those that can't be
    read.
    """
    here = copied(whole, tmp_path)
    chosen = [r.run_id for r in runs(2, METHODS) if r.spec.method.name == "head"]
    for run, edit in zip(
        chosen, (failed_check, other_protocol, not_ok, no_predictions), strict=True
    ):
        edit(here / run)
    assert (
        facts(Results.load(here))["Runs"]
        == "12 compared, 8 on other ranks, 2 set apart, 1 not ok, 1 unreadable"
    )


def test_runs_whose_task_is_not_installed_are_left_out(tmp_path: Path) -> None:
    """The others make the page, which says why; the scores of these can't be checked here."""
    made_records.write(tmp_path, made_records.sweep(("lora", "full"), 3))
    gone = made_records.SETTINGS.model_copy(update={"task": TaskSpec(name="gone")})
    made_records.write(tmp_path, [made_records.record("head", 0, settings=gone)])
    results = Results.load(tmp_path)
    assert set(results.methods) == {"lora", "full"}
    (reason,) = apart(results).values()
    assert "there is no task 'gone'" in reason


def test_the_protocol_of_most_runs_is_compared(tmp_path: Path) -> None:
    """A later run by another budget doesn't take the page."""
    longer = made_records.SETTINGS.model_copy(update={"steps": 200})
    later = made_records.record("lora", 0, 99, settings=longer, started="2099-01-01T00:00:00+00:00")
    made_records.write(tmp_path, [*made_records.sweep(("lora", "full"), 3), later])
    assert {record.spec.settings.steps for record in Results.load(tmp_path).compared} == {
        made_records.SETTINGS.steps
    }


def test_options_at_their_defaults_make_no_other_method(tmp_path: Path) -> None:
    """Written out by one version and left out by another: one method, whatever the seeds."""
    whole = made_records.record("lora").spec.method
    spec = whole.model_copy(
        update={"options": {**whole.options, "dropout": 0.0, "target": "all-linear"}}
    )
    others = [made_records.record("lora", seed, method_spec=spec) for seed in (2, 3)]
    made_records.write(tmp_path, [*made_records.sweep(("full", "lora"), 2), *others])
    assert set(Results.load(tmp_path).methods) == {"lora", "full"}


# What one seed may say, what is flagged, and records that define metrics otherwise


STEADY = (
    made_records._metric("timed_steps", "timed steps", "", "neither", spec=".0f"),
    made_records._metric("timed_seconds", "timed window", "s", "neither", spec=".2f"),
    made_records._metric("step_time_cv", "step time variation", "", "lower", spec=".1%"),
    *(
        made_records._metric(
            f"step_time_drift{end}", f"step time drift{end}", "", "neither", spec=".1%"
        )
        for end in ("", "_low", "_high")
    ),
)
CALM = {
    "timed_steps": 100.0,
    "timed_seconds": 3.0,
    "step_time_cv": 0.02,
    "step_time_drift": 0.01,
    "step_time_drift_low": -0.01,
    "step_time_drift_high": 0.03,
}


DRIFT, PAUSE = "seed 0: drift [{}]", "seed 0: one step took about {} % of the time"


@pytest.mark.parametrize(
    ("drift", "variation", "notes"),
    [
        ((-0.01, 0.03), 0.02, {}),
        ((-0.05, 0.05), 0.02, {}),
        ((-0.1, 0.15), 0.02, {}),
        ((-0.01, 0.03), 1.9, {}),
        ((-0.01, 0.03), 2.1, {"¶": PAUSE.format(21)}),
        ((0.051, 0.09), 0.02, {"†": DRIFT.format("+5.1 %, +9.0 %")}),
        ((-0.2, -0.06), 0.02, {"†": DRIFT.format("−20.0 %, −6.0 %")}),
        ((0.1, 0.2), 3.0, {"†": DRIFT.format("+10.0 %, +20.0 %"), "¶": PAUSE.format(30)}),
        ((-0.4, 0.6), 0.02, {"§": "drift [−15.1 %, +17.8 %] over its runs"}),
        ((None, None), 0.02, {"§": "too few steps in 1 of 3 runs"}),
    ],
)
def test_windows_that_are_not_steady_are_marked(
    tmp_path: Path,
    drift: tuple[float | None, float | None],
    variation: float,
    notes: dict[str, str],
) -> None:
    """One that drifts by over 5 % or holds a pause, and a method's that are too short to tell;
    with the reason.
    """
    made = [
        with_metrics(r, **CALM).model_copy(update={"definitions": (*r.definitions, *STEADY)})
        for r in sweep(["lora", "full"], 3)
    ]
    ends = dict(zip(("step_time_drift_low", "step_time_drift_high"), drift, strict=True))
    made[0] = with_metrics(made[0], step_time_cv=variation, **ends)
    results = load(tmp_path, made)
    lines = said("throughput", results).splitlines()
    assert {mark for mark in "†§¶" if mark in "".join(lines)} == notes.keys()
    for mark, clause in notes.items():
        (note,) = [line for line in lines if line.startswith(mark) and line.endswith(").")]
        assert note.endswith(f": lora ({clause}).")
        assert [line.split(" | ")[0] for line in lines if mark in line and "|" in line] == [
            "lora",
            "lora",
        ]
    assert ("Step times drift for lora (see Throughput)." in said("summary", results)) == (
        "†" in notes
    )


def apart(results: Results) -> dict[str, str]:
    """Return run_id -> why it is set apart."""
    return {r.run_id: group.reason for group in results.left_out.excluded for r in group.records}


@pytest.mark.parametrize(
    "changes",
    [
        {"better": "higher"},
        {"unit": "ms"},
        {"bounds": (0.0, 100.0)},
        {"grid": 7.0},
        {"noisy": False},
    ],
)
def test_one_record_does_not_turn_the_page(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The newest run calls longer training better, has another unit, range, grid or score: it is
    left out alone.
    """
    *others, newest = sweep(["head", "full"])
    turned = tuple(
        m.model_copy(update=changes) if m.name == TIME else m for m in newest.definitions
    )
    results = load(tmp_path, [*others, newest.model_copy(update={"definitions": turned})])
    assert results.definitions[TIME].better == "lower"
    assert results.definitions[TIME].unit == "s"
    assert list(apart(results)) == [newest.run_id]
    assert (
        "it defines metrics otherwise than most runs: train_seconds has "
        in apart(results)[newest.run_id]
    )
    by_f1 = load(
        tmp_path / "f1", [*others, newest.model_copy(update={"headline": "test_macro_f1"})]
    )
    assert (by_f1.quality, list(apart(by_f1))) == ("test_accuracy", [newest.run_id])


def test_another_order_of_rows_is_none(tmp_path: Path) -> None:
    """Rows may be stored in any order, and scores may differ by what float32 rounds away."""
    before = load(tmp_path, sweep(["lora", "full"], 3)).aligned.units["lora"][1]
    answered(lambda frame: frame.iloc[::-1])(next(tmp_path.glob("lora-s1-*")))
    results = Results.load(tmp_path)
    assert len(results.compared) == 6
    assert (results.aligned.units["lora"][1] == before).all()
    answered(lambda frame: frame.assign(loss=frame.loss.astype(float) * (1 + 1e-8)))(
        next(tmp_path.glob("lora-s2-*"))
    )
    assert len(Results.load(tmp_path).compared) == 6
