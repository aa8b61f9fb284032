"""Results folders from elsewhere: links aren't followed, pipes and devices not opened, records
not believed blindly.
"""

import json
import os
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import made_records
from helpers.commands import called
from hpml_bench.builtin.sections.summary import scores_table
from hpml_bench.page.export import load_results
from hpml_bench.page.render import load, write_report
from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD, SUITE
from hpml_bench.records.folder import ResultsFolder, RunFolder
from hpml_bench.records.load import digests_of, load_records, read_record
from hpml_bench.records.points import iterate_points, read_points
from hpml_bench.system.errors import UserError


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Break off what waits for a pipe that nobody writes to, or reads a device without end."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def results_folder(tmp_path: Path) -> Path:
    return made_records.write(
        tmp_path / "reports" / "example", made_records.sweep(["lora", "full"], 2)
    )


def test_a_link_is_no_run(results_folder: Path, tmp_path: Path) -> None:
    """A run folder, or a record, that is a link is told and left out; what it leads to isn't
    read.
    """
    run = next(path for path in results_folder.iterdir() if path.is_dir())
    outside = tmp_path / "outside"
    run.rename(outside)
    run.symlink_to(outside)
    other = next(path for path in results_folder.iterdir() if not path.is_symlink())
    (other / RECORD).rename(tmp_path / "record.json")
    (other / RECORD).symlink_to(tmp_path / "record.json")
    found = load_records(results_folder)
    assert len(found.records) == 2
    assert len(found.problems) == 2
    assert all("link" in problem for problem in found.problems)
    assert read_record(run) is None
    assert len(load(results_folder).left_out.problems) == 2


def test_starting_anew_removes_the_link_and_not_what_it_leads_to(
    results_folder: Path, tmp_path: Path
) -> None:
    """Neither `--fresh` nor a run's own beginning empties a folder elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / RECORD).write_text("{}")
    (outside / "precious").write_text("x")
    for name, act in (
        ("a", lambda: ResultsFolder(results_folder).clear()),
        ("b", lambda: RunFolder(results_folder / "b").begin()),
    ):
        (results_folder / name).symlink_to(outside)
        act()
        assert not (results_folder / name).is_symlink()
        assert (outside / "precious").read_text() == "x"
    assert (results_folder / "b").is_dir()


@pytest.mark.parametrize("name", [RECORD, POINTS, PREDICTIONS, SUITE])
@pytest.mark.parametrize("kind", ["a pipe", "a device without end", "a folder"])
def test_what_is_no_file_is_not_opened(results_folder: Path, name: str, kind: str) -> None:
    """A pipe, a device or a folder in a file's place neither hangs nor ends a report; of a run's
    it is told.
    """
    run = next(path for path in sorted(results_folder.iterdir()) if path.is_dir())
    place = (results_folder if name == SUITE else run) / name
    place.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(place)
    elif kind == "a folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    results = load(results_folder)
    left = 0 if name == SUITE else 1
    assert (len(results.compared), len(results.left_out.problems)) == (4 - left, left)
    assert all(
        problem.startswith((f"{run.name}/{name} is ", f"{run.name}/{name} can't be read: "))
        for problem in results.left_out.problems
    )
    assert len(scores_table(results).rows) == 2
    assert set(results.curves["train_loss"]) == {"lora", "full"}
    assert len(load_results(results_folder)) == 4 - left
    called("list", "runs", results_folder.parent)
    digests_of(run)
    read_points(run)


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *(
            ({"run_id": name}, "run_id")
            for name in ("../../outside", "/etc", "a/b", "", "a\nb", ".", "\x1b[31m")
        ),
        ({"environment": deep(400)}, "recursion limit"),
        ({"environment": deep(50)}, "nested"),
        ({"order": 10**400}, "64 bits"),
        ({"environment": {"x": "\ud800"}}, "hex escape"),
        ({"environment": {"\udfff": "x"}}, "surrogate"),
    ],
)
def test_what_only_json_can_hold_is_no_record(
    results_folder: Path, change: dict[str, Any], says: str
) -> None:
    """Told and left out are ids that name another folder, nesting, integers and halves of
    characters.
    """
    path = next(results_folder.glob("*/run.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = load_records(results_folder)
    assert len(found.records) == 3
    assert says in found.problems[0]
    assert write_report(results_folder, None, ["md"])


def test_points_without_line_ends_take_no_memory(results_folder: Path) -> None:
    """Lines are read up to what a point can have; the points around a huge one are kept."""
    run = next(path for path in results_folder.iterdir() if path.is_dir())
    good = '{"metric":"train_loss","step":1,"value":0.5}\n'
    odd = '{"metric":"train_loss","step":1' + "0" * 400 + ',"value":0.5}\n'
    (run / POINTS).write_text(good + "x" * 30_000_000 + "\n" + odd + good)
    tracemalloc.start()
    assert [point.step for point in iterate_points(run)] == [1, 1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("name", ["figures", "tables"])
def test_a_report_is_not_written_through_a_link(
    results_folder: Path, tmp_path: Path, name: str
) -> None:
    """Charts and tables go into folders of the report's own."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (results_folder / name).symlink_to(outside)
    with pytest.raises(UserError, match="link"):
        write_report(results_folder, None, ["md", "csv"])
    assert list(outside.iterdir()) == []
