"""Random faults at random moments (`benchmarks/soak.py`, of which `tox -e soak` does more)."""

import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import faults
import pytest
import soak

pytestmark = pytest.mark.serial

SEED = 20


@pytest.mark.suites
def test_a_sweep_that_is_hit_five_times_ends_as_an_undisturbed_one() -> None:
    """Five faults: `run-all` completes, losses and predictions are the same to the bit, and
    nothing is left.
    """
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as name:
        undisturbed = faults.Sweep(Path(name) / "undisturbed", "head", 4)
        assert faults.disturb(random.Random(0), undisturbed, []) == ([], [])
        expected = faults.content(undisturbed.folder)
        assert len(expected) == 4
        sweep = faults.Sweep(Path(name) / "disturbed", "head", 4)
        segments = faults.shared_memory()
        events, left = faults.disturb(rng, sweep, [rng.uniform(1, 4) for _ in range(5)])
        assert len(events) == 5
        assert left == [], events
        assert faults.leftovers(sweep) == [], events
        assert faults.content(sweep.folder) == expected, events
        assert faults.shared_memory() - segments == set()


def test_the_comparison_sees_a_difference(tmp_path: Path) -> None:
    """Its own eyes: another prediction or loss is another content, and a fault without a target
    is none.
    """
    from helpers import made_records

    made_records.write(tmp_path / "a", made_records.sweep(("lora",), 1))
    made_records.write(tmp_path / "b", made_records.sweep(("lora",), 1))
    assert faults.content(tmp_path / "a") == faults.content(tmp_path / "b") != {}
    (points,) = (tmp_path / "b").glob("*/points.jsonl")
    points.write_text(
        points.read_text().replace(
            '"train_loss","step":10,"value":', '"train_loss","step":10,"value":1'
        )
    )
    assert faults.content(tmp_path / "a") != faults.content(tmp_path / "b")
    assert not faults.struck(
        lambda _: [], signal.SIGKILL, faults.Sweep(tmp_path / "one", "head", 1)
    )


def test_a_parent_that_grows_fails_the_soak() -> None:
    """Memory or descriptors of the last quarter over those of the second by a margin, with or
    without faults.
    """
    flat = soak.quarters([10.0] * 1000 + [250.0] * 3000)
    risen = soak.quarters([10.0] * 1000 + [250.0 + 30 * number / 3000 for number in range(3000)])
    names = [
        f"{which}{what}"
        for which in ("", "disturbed_")
        for what in ("parent_mb", "parent_descriptors")
    ]
    good = {"equal": True, "left": [], **dict.fromkeys(names, flat)}
    assert not soak.ended_badly(good)
    for worse in (*({name: risen} for name in names), {"equal": False}, {"left": ["a file"]}):
        assert soak.ended_badly(good | worse), worse
    short = {"looks": 500}
    assert not soak.ended_badly(good | dict.fromkeys(names, risen | short)), "too short to tell"


def test_what_a_sweep_leaves_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file, a half-made entry of the cache, and a process of its session: each is
    told.
    """
    sweep = faults.Sweep(tmp_path / "one", "head", 1)
    assert faults.leftovers(sweep) == []
    (sweep.cache / "models/.new.abc").mkdir(parents=True)
    (sweep.out / "quickstart/.run.json.1.tmp").mkdir(parents=True)
    (sweep.temporary / "file").write_text("")
    assert [Path(name).name for name in faults.leftovers(sweep)] == [
        "file",
        ".run.json.1.tmp",
        ".new.abc",
    ]
    monkeypatch.setattr(faults, "LAST_SECONDS", 0.2)
    script = f"{sys.executable} -c 'import time; time.sleep(60)' & echo $!"
    with subprocess.Popen(
        ["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        parent.wait()
        assert f"pid={child}" in str(faults.still_there(parent))
        os.kill(child, signal.SIGKILL)
    monkeypatch.setattr(faults, "LAST_SECONDS", 60.0)
    assert faults.still_there(parent) == []
