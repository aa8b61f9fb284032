"""One selection for every section: what is set apart enters no number of a page, whatever set it apart."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import made_records
from hpml_bench.plugins.blocks import Fold, Text
from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD
from hpml_bench.records.load import digests_of, load_record
from hpml_bench.records.run import RunRecord
from hpml_bench.report.render import all_sections, facts
from hpml_bench.report.results import Results
from hpml_bench.suite.settings import TaskSpec

PARTS = {"first_step_seconds": 1.0, "evaluation_seconds": 0.5, "inference_seconds": 0.5}
METHODS = ("lora", "full", "adapter", "head")
SEEDS = 4


def runs(ranks: int, methods: tuple[str, ...]) -> list[RunRecord]:
    """Return a sweep on so many ranks, with what the time budget needs."""
    chosen = made_records.SETTINGS.model_copy(update={"world_size": ranks})
    made = made_records.sweep(methods, SEEDS, settings=chosen)
    return [r.model_copy(update={"metrics": r.metrics | PARTS | {"communication_ms": 1.0 + r.spec.seed}}) for r in made]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of four methods x four seeds on two ranks, and of two methods on one rank."""
    folder = tmp_path_factory.mktemp("whole") / "example"
    return made_records.write(folder, [*runs(2, METHODS), *runs(1, ("lora", "full"))])


# What sets a run apart


def change_record(run: Path, **changes: Any) -> None:
    """Rewrite a run's record with other fields."""
    made_records.rewrite(run, load_record(run / RECORD).model_copy(update=changes))


def other_protocol(run: Path) -> None:
    """Say that it ran with another setting."""
    record = load_record(run / RECORD)
    spec = record.spec.model_copy(update={"settings": record.spec.settings.model_copy(update={"train_samples": 999})})
    change_record(run, spec=spec, protocol_id="f" * 12)


def other_consumption(run: Path) -> None:
    """Say that it consumed less."""
    record = load_record(run / RECORD)
    assert record.consumed
    change_record(run, consumed=record.consumed.model_copy(update={"steps": 90, "samples": 1440}))


def failed_check(run: Path) -> None:
    """Say that a self-check failed."""
    record = load_record(run / RECORD)
    change_record(run, checks=tuple(check.model_copy(update={"passed": False}) for check in record.checks))


def no_predictions(run: Path) -> None:
    """Remove the predictions."""
    (run / PREDICTIONS).unlink()


def no_digest(run: Path) -> None:
    """Remove the predictions, and every word of them in the record."""
    (run / PREDICTIONS).unlink()
    change_record(run, files=digests_of(run))


def changed_predictions(run: Path) -> None:
    """Turn some answers; the record knows another file."""
    frame = pd.read_parquet(run / PREDICTIONS)
    frame.loc[:20, "prediction"] = (frame.loc[:20, "prediction"] + 1) % 4
    frame.to_parquet(run / PREDICTIONS, index=False)


def changed_answers(run: Path) -> None:
    """Turn some answers, and give the record the new file's digest."""
    changed_predictions(run)
    change_record(run, files=digests_of(run))


def changed_losses(run: Path) -> None:
    """Change the losses beside the answers, and give the record the new file's digest."""
    frame = pd.read_parquet(run / PREDICTIONS)
    frame.assign(loss=frame.loss + 0.01).to_parquet(run / PREDICTIONS, index=False)
    change_record(run, files=digests_of(run))


def changed_score(name: str) -> Callable[[Path], None]:
    """Return an edit of one recorded score."""

    def change(run: Path) -> None:
        record = load_record(run / RECORD)
        change_record(run, metrics=record.metrics | {name: (record.metrics[name] or 0) + 0.03})

    return change


def changed_points(run: Path) -> None:
    """Append a point that the record's digest doesn't know."""
    with (run / POINTS).open("a") as file:
        file.write('{"metric":"train_loss","step":101,"value":0.001}\n')


def not_ok(run: Path) -> None:
    """Say that it failed."""
    change_record(run, status="failed")


EDITS = (
    other_protocol, other_consumption, failed_check, no_predictions, no_digest, changed_predictions, changed_answers,
    changed_losses, changed_score("test_accuracy"), changed_score("test_macro_f1"), changed_score("test_loss"),
    changed_points, not_ok,
)  # fmt: skip
UNREAD = (other_protocol, no_predictions, changed_predictions, changed_points, not_ok)
"""Those after which the copy is no ok record of the same protocol that can be read: the original is alone."""


def page(folder: Path) -> dict[str, Any]:
    """Return all that sections show, but those on what went wrong: cells, values, notes, sentences, figures."""
    return dict(_shown(Results.load(folder)))


def _shown(results: Results) -> Iterator[tuple[str, Any]]:
    for section in all_sections(results):
        if section.question == "wrong":
            continue
        for number, block in enumerate(section.blocks):
            where = f"{section.slug} {number}"
            if isinstance(block, Text):
                yield where, block.sentences
            else:
                content = block.model_dump(mode="json")
                if isinstance(block, Fold):
                    content["about"] = re.sub(r"; \d+ (runs? failed|of \d+ seeds)$", "", block.about)
                content["notes"] = [n for n in content.get("notes", ()) if not n.startswith("No comparable run")]
                yield where, content


def copied(whole: Path, folder: str) -> Path:
    """Return a copy of the folder of results."""
    return Path(shutil.copytree(whole, Path(folder) / "example"))


names = st.sampled_from([r.run_id for ranks, of in ((2, METHODS), (1, ("lora", "full"))) for r in runs(ranks, of)])


def assert_set_apart(whole: Path, folder: Path, edited: list[tuple[str, Callable[[Path], None]]]) -> None:
    """Assert that a page with edited runs is the page without them, to the last digit, and counts them as left out."""
    here, there = copied(whole, str(folder / "a")), copied(whole, str(folder / "b"))
    for run, edit in edited:
        edit(here / run)
        shutil.rmtree(there / run)
    assert page(here) == page(there)
    assert _left_out(here) == _left_out(there) + len(edited)


@pytest.mark.parametrize("first", range(0, len(EDITS), SEEDS))
def test_each_edit_sets_a_run_apart(whole: Path, tmp_path: Path, first: int) -> None:
    """Every edit, four to a page, each of another seed and method."""
    chosen = {r.spec.seed: r.run_id for r in runs(2, METHODS) if r.spec.method.name == METHODS[r.spec.seed]}
    assert_set_apart(whole, tmp_path, [(chosen[seed], edit) for seed, edit in enumerate(EDITS[first : first + SEEDS])])


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    edited=st.lists(
        st.tuples(names, st.integers(0, len(EDITS) - 1)),
        min_size=1,
        max_size=3,
        unique_by=lambda of: of[0].rpartition("-s")[2][0],  # one a seed: the others of its seed agree against it
    )
)
def test_what_is_set_apart_enters_no_number(whole: Path, edited: list[tuple[str, int]]) -> None:
    """Runs edited in any way that sets them apart leave the page that is made without them, to the last digit."""
    with TemporaryDirectory() as folder:
        assert_set_apart(whole, Path(folder), [(run, EDITS[edit]) for run, edit in edited])


def _left_out(folder: Path) -> int:
    left = Results.load(folder).left_out
    return left.excluded_runs + len(left.unfinished) + len(left.problems)


@pytest.mark.parametrize("half", [0, 1])
def test_of_an_edited_copy_and_its_original_neither_counts(whole: Path, tmp_path: Path, half: int) -> None:
    """A copy of a run with whatever fault takes the original with it: nothing tells which of the two is meant."""
    here, there = copied(whole, str(tmp_path / "a")), copied(whole, str(tmp_path / "b"))
    edits = [edit for edit in EDITS if edit not in UNREAD][half::2]
    chosen = [r.run_id for r in runs(2, METHODS) if r.spec.method.name == METHODS[r.spec.seed]]
    for run, edit in zip(chosen, edits, strict=True):
        shutil.copytree(here / run, here / f"{run}-copy")
        edit(here / f"{run}-copy")
        shutil.rmtree(there / run)
    assert page(here) == page(there)


@pytest.mark.parametrize("renamed", [False, True])
def test_of_two_records_neither_counts(whole: Path, tmp_path: Path, renamed: bool) -> None:
    """A run that is there twice, as a copied folder or of a renamed suite, counts in neither; both are named."""
    here, there = copied(whole, str(tmp_path / "a")), copied(whole, str(tmp_path / "b"))
    run = next(r for r in runs(2, METHODS) if (r.spec.method.name, r.spec.seed) == ("full", 2)).run_id
    twin = shutil.copytree(here / run, here / f"{run}-backup")
    if renamed:
        content = json.loads((twin / RECORD).read_text())
        content["spec"]["suite"] = "another"
        (twin / RECORD).write_text(json.dumps(content))
    shutil.rmtree(there / run)
    assert page(here) == page(there)
    apart = next(one for one in Results.load(here).left_out.excluded if "2 records" in one.reason)
    assert {record.run_id for record in apart.records} == {run, f"{run}-backup"}
    assert f"2 records of one method, seed and protocol, so that none counts: {run}, {run}-backup" in apart.reason
    assert facts(Results.load(here))["Runs"] == "15 compared, 7 on other ranks, 3 set apart"


ELSEWHERE = {
    "fingerprint": "another", "python": "3.13.0", "system": "Linux-6.1", "kernel": "6.1", "driver": "570.1",
    "process": {"MALLOC_TOP_PAD_": "0"}, "threads": {"intra_op": 9},
    "packages": made_records.ENVIRONMENT["packages"] | {"numpy": "9.9"},  # type: ignore[operator]
}  # fmt: skip


MOVED = [r.run_id for r in runs(2, METHODS) if r.spec.method.name == "full" and r.spec.seed in {1, 2}]


@pytest.fixture(scope="module")
def lacking(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, dict[str, list[Any]]]:
    """The results without the runs that are moved elsewhere, and their sections."""
    folder = copied(whole, str(tmp_path_factory.mktemp("lacking") / "a"))
    for run in MOVED:
        shutil.rmtree(folder / run)
    results = Results.load(folder)
    return results, _sections(results)


@pytest.mark.parametrize("item", ELSEWHERE)
def test_costs_are_of_one_machine(
    whole: Path, tmp_path: Path, item: str, lacking: tuple[Results, dict[str, list[Any]]]
) -> None:
    """A run elsewhere, by whatever its costs depend on, enters no cost and every score; the page names it and why."""
    here = copied(whole, str(tmp_path))
    for run in MOVED:
        change_record(here / run, environment=made_records.ENVIRONMENT | {item: ELSEWHERE[item]})
    results, original = (Results.load(folder) for folder in (here, whole))
    sections = _sections(results)
    for name, definition in original.definitions.items():
        expected = original if not definition.depends_on_machine else lacking[0]
        assert results.values(name) == expected.values(name)
    for name in ("Throughput", "Memory", "Inference", "Time budget", "Scaling over ranks"):
        assert sections[name] == lacking[1][name]
    environments = str(sections["Environment"])
    assert "full, seed 1, 2" in environments
    assert item in environments
    assert "Costs of 2 of 16 compared runs don't count: other hardware" in str(sections["Cautions"])


def _sections(results: Results) -> dict[str, list[Any]]:
    return {made.title: [block.model_dump(mode="json") for block in made.blocks] for made in all_sections(results)}


def test_the_head_counts_what_is_compared(whole: Path, tmp_path: Path) -> None:
    """Beside the compared runs stand those set apart, those that failed, and those that can't be read."""
    here = copied(whole, str(tmp_path))
    chosen = [r.run_id for r in runs(2, METHODS) if r.spec.method.name == "head"]
    for run, edit in zip(chosen, (failed_check, other_protocol, not_ok, no_predictions), strict=True):
        edit(here / run)
    assert facts(Results.load(here))["Runs"] == "12 compared, 8 on other ranks, 2 set apart, 1 not ok, 1 unreadable"


def test_nothing_else_can_be_reached(whole: Path, tmp_path: Path) -> None:
    """No attribute of what a section gets holds a run that is not compared, but for those left out and other ranks."""
    here = copied(whole, str(tmp_path))
    failed_check(here / runs(2, METHODS)[0].run_id)
    results = Results.load(here)
    all_sections(results)  # fills what is cached
    known = {record.run_id for record in results.compared}
    public = {name: getattr(results, name) for name in dir(results) if not name.startswith("_") and name != "left_out"}
    for name, value in public.items():
        if not callable(value):
            assert {record.run_id for record in _records(value)} <= known, name


def _records(value: Any) -> Iterator[RunRecord]:
    if isinstance(value, RunRecord):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _records(item)
    elif isinstance(value, tuple | list | frozenset):
        for item in value:
            yield from _records(item)


def test_runs_whose_task_is_not_installed_are_left_out(tmp_path: Path) -> None:
    """The others make the page, which says why; the scores of these can't be checked here."""
    made_records.write(tmp_path, made_records.sweep(("lora", "full"), 3))
    gone = made_records.SETTINGS.model_copy(update={"task": TaskSpec(name="gone")})
    made_records.write(tmp_path, [made_records.record("head", 0, settings=gone)])
    results = Results.load(tmp_path)
    assert set(results.methods) == {"lora", "full"}
    reasons = [group.reason for group in results.left_out.excluded]
    assert any("there is no task 'gone'" in reason for reason in reasons), reasons


def test_the_protocol_of_most_runs_is_compared(tmp_path: Path) -> None:
    """A later run by another budget doesn't take the page."""
    longer = made_records.SETTINGS.model_copy(update={"steps": 200})
    later = made_records.record("lora", 0, 99, settings=longer).model_copy(
        update={"started": "2099-01-01T00:00:00+00:00"}
    )
    made_records.write(tmp_path, [*made_records.sweep(("lora", "full"), 3), later])
    assert {record.spec.settings.steps for record in Results.load(tmp_path).compared} == {made_records.SETTINGS.steps}


def test_options_at_their_defaults_make_no_other_method(tmp_path: Path) -> None:
    """Written out by one version and left out by another: one method, whatever the seeds."""
    whole = made_records.record("lora").spec.method
    records = made_records.sweep(("full",), 4)
    for seed in range(4):
        options = {**whole.options, **({} if seed < 2 else {"dropout": 0.0, "target": "all-linear"})}
        spec = whole.model_copy(update={"options": options})
        records.append(made_records.record("lora", seed, method_spec=spec))
    made_records.write(tmp_path, records)
    assert set(Results.load(tmp_path).methods) == {"lora", "full"}
