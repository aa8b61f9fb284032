"""`run-all` in results folders in which a file was made hostile: it ends in a result, or in a
sentence.
"""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import opened
import pytest
from click.testing import Result

from helpers import hostile_files, tiny
from helpers.commands import called
from helpers.hostile_files import KINDS, NO_FILES
from hpml_bench.records.files import RECORD
from hpml_bench.records.load import load_records

ROWS = {row.pattern: row for row in opened.RESULTS}
UNFINISHED = {
    "*/rank*.log",
    "*/heartbeat-rank*",
    "*/outcome.json",
    "*/error-rank*.json",
    "*/command/*",
    "*/checkpoints/*/*.safetensors",
}
"""Rows that are tried in the folder of a run that has no record, which is thus done again."""
SECONDS = 5  # of this process's CPU, beyond those of the same command among sound files
HANGS = 120  # seconds of the clock
QUICK = {
    (".lock", "a link to the file"),
    ("*/run.json", "no permission"),
    ("*/points.jsonl", "a pipe"),
    ("*/checkpoints/*/*.safetensors", "a huge file with holes"),
}
"""Cases that README's tests try."""
UNREAD = (".lock", "a huge file with holes")
"""A file that is locked and never read: it may be of any size."""
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.tables)
    for case in product(ROWS, (*NO_FILES, "deep JSON"))
    if case != ("*/kept/*", "a huge file with holes")
]


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Break off what waits for a pipe that nobody writes to."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(HANGS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A suite of one run, and the results folder of it."""
    room = tmp_path_factory.mktemp("colours")
    suite = tiny.local_suite(room)
    assert run_all(suite, room / "out").exit_code == 0
    return suite, room / "out" / "colours"


def test_the_count_is_that_of_the_docs() -> None:
    """docs/security.md says in how many hostile folders the command is started."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    assert f"`run-all` is started in\n{len(CASES)} such folders" in page
    assert len(QUICK) == 69 - 65


def run_all(suite: Path, out: Path) -> Result:
    options = ("--methods", "head", "--seeds", "1", "--wandb", "off")
    return called("run-all", suite, "--out", out, *options, status=None)


@pytest.mark.parametrize(("pattern", "kind"), CASES)
def test_run_all_ends_well(
    pattern: str, kind: str, sweep: tuple[Path, Path], tmp_path: Path
) -> None:
    """The run is done or was done, or the command ends with status 2 and names the file.

    No traceback, and no more than a few seconds of its own.
    """
    suite, finished = sweep
    folder = Path(shutil.copytree(finished, tmp_path / "colours"))
    place, content = hostile_files.emptied(folder, pattern)
    if pattern in UNFINISHED:
        (place_of_run(folder) / RECORD).unlink()
    KINDS[kind](place, content)
    rights = hostile_files.without_overrides() if kind == "no permission" else nullcontext()
    began = time.process_time()
    with rights:
        done = run_all(suite, tmp_path)
    assert isinstance(done.exception, SystemExit | None), done.exc_info
    assert "Traceback" not in done.output
    assert time.process_time() - began < SECONDS
    if done.exit_code == 2:
        text = done.output.replace("\n", "")
        assert hostile_files.names(text, place, folder)
        return
    assert done.exit_code == 0, done.output
    statuses = [record.status for record in load_records(folder).records]
    assert statuses == ["ok"]
    if "run-all" in ROWS[pattern].named_by and kind in NO_FILES and (pattern, kind) != UNREAD:
        assert hostile_files.names(done.output.replace("\n", ""), place, folder)


def place_of_run(folder: Path) -> Path:
    """Return the folder of the only run."""
    (record,) = folder.glob(f"*/{RECORD}")
    return record.parent
