"""Following files that grow."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from helpers import made_records
from hpml_bench.records.files import POINTS
from hpml_bench.records.points import Tail
from hpml_bench.sweep.execute import SweepProgress, in_words
from hpml_bench.system.heartbeat import Beat


def wait_until(true: Callable[[], bool]) -> None:
    """Wait, at most a minute."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    """A line comes when its end has come, and once; it is decoded as one, and what is no UTF-8 stops nothing.

    A file that isn't there yet has none.
    """
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.lines() == []
    with path.open("ab", buffering=0) as file:
        for written, lines in (
            (b"one\ntw", ["one"]), (b"", []), (b"o\nthree\nfo", ["two", "three"]), (b"ur\n", ["four"]),
            (b"gr\xc3", []), (b"\xbcn\n\xff\n", ["gr\u00fcn", "\ufffd"]),
        ):  # fmt: skip
            file.write(written)
            assert tail.lines() == lines


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_a_run_is_a_line_where_there_is_no_terminal(status: str, tmp_path: Path) -> None:
    """Its place, method, seed, status and what matters most; control characters of a message stay inert."""
    console = Console(file=io.StringIO(), width=200)
    message = "lost\x1b[31m [bold]all\nsecond line"
    record = made_records.record("lora", 3) if status == "ok" else made_records.failed("lora", 3, status, message)
    with SweepProgress(console, 2) as progress:
        with progress.run(record.spec, tmp_path, 10):
            pass
        progress.finished(record)
        progress.finished(record.model_copy(update={"metrics": record.metrics | {"selected_step": 1200.0}}))
    text = console.file.getvalue()
    assert text.count("of step 1,200 by validation rows") == 1
    assert f"[1/2] lora seed 3: {status}" in text
    assert ("accuracy" in text) == (status == "ok")
    assert "\x1b" not in text
    assert "second line" not in text
    assert ("[bold]all" in text) == (status == "failed")


def test_a_line_tells_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other runs are taken to go on at the pace of this call; after the last one nothing is left."""
    now = iter([0.0, 60.0, 120.0])
    monkeypatch.setattr("hpml_bench.sweep.execute.time.monotonic", lambda: next(now))
    console = Console(file=io.StringIO(), width=200)
    with SweepProgress(console, 4) as progress:
        progress.skip(2)
        for seed in (0, 1):
            record = made_records.record("lora", seed)
            with progress.run(record.spec, tmp_path, 10):
                pass
            progress.finished(record)
    first, last = console.file.getvalue().splitlines()[1:]
    assert first.endswith("; about 60 s left")
    assert "left" not in last


def test_durations_in_words() -> None:
    """Seconds, minutes and hours, as rough as they are known."""
    assert [in_words(s) for s in (0.2, 40, 720, 12_600)] == ["1 s", "40 s", "12 min", "3.5 h"]


def test_a_closed_pipe_does_not_end_a_sweep() -> None:
    """As under `| head`: what is said is lost, what comes after it (runs, report) is done."""
    program = "import sys; from hpml_bench.sweep.execute import SweepProgress\n"
    program += "from hpml_bench.report.terminal import terminal\n"
    program += "sys.stdin.read()\nwith SweepProgress(terminal(), 1) as progress: progress.say('lost')\n"
    program += "print('went on', file=sys.stderr)"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == "went on\n"


def test_a_run_under_way_moves_both_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first second the bar names the stage; steps count as a share; why no state is saved is said."""
    monkeypatch.setattr("hpml_bench.sweep.execute.POLL_SECONDS", 0.01)
    beats = [Beat(0, 1, 1, "building the model", 0.0)]
    monkeypatch.setattr("hpml_bench.sweep.execute.heartbeat.read", lambda _: beats)
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with SweepProgress(console, 4) as progress, progress.run(made_records.record("lora", 0).spec, tmp_path, 10):
        overall, bar = progress._bars.tasks
        wait_until(lambda: bar.description == "lora seed 0, building the model")
        beats[0] = Beat(0, 1, 2, "training step 5", 0.0)
        (tmp_path / POINTS).write_text('{"metric": "loss", "step": 5, "value": 1.0}\n')
        wait_until(lambda: overall.completed == 0.5)
        wait_until(lambda: bar.description == "lora seed 0")
        assert bar.completed == 5
        (tmp_path / "rank0.log").write_text("the rest\nno checkpoint: a plug-in\n")
        wait_until(lambda: "no checkpoint: a plug-in" in console.file.getvalue())
        assert "the rest" not in console.file.getvalue()
    assert overall.completed == 1
