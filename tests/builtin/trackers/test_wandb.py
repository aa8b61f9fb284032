"""Publishing to wandb: read back from its own files, with no secrets, and never in the way."""

import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers import made_records
from helpers.fake_wandb import nothing_left, runs_below, serving
from helpers.waiting import until
from hpml_bench.builtin.trackers.wandb import Wandb
from hpml_bench.plugins import publishing
from hpml_bench.plugins.blocks import Table
from hpml_bench.plugins.publishing import group_of
from hpml_bench.records.files import POINTS
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_records, read_record
from hpml_bench.records.points import PointWriter
from hpml_bench.records.run import Point, RunRecord
from hpml_bench.suite.settings import DatasetSpec, MethodSpec, RunSpec, Settings

pytestmark = pytest.mark.usefixtures("home")

KEY = "0123456789abcdef0123456789abcdef01234567"
SECRETS = {
    "WANDB_API_KEY": KEY,
    "HF_TOKEN": "hf_PlantedPlantedPlanted",
    "AWS_SECRET_ACCESS_KEY": "aws/Planted+Secret/Access",
    "DATABASE_PASSWORD": "planted-password-planted",
}
TABLES = (
    Table(
        name="summary",
        caption="Summary",
        columns=("method", "accuracy", "note"),
        rows=(("lora", "90.0 %", "–"), ("full", "nan", "a <b> `c`\n|")),
        values=(("lora", 0.9, None), ("full", float("nan"), "a <b> `c`\n|")),
    ),
    Table(
        name="failures",
        caption="Failures",
        columns=("run", "why"),
        rows=((f"no {SECRETS['AWS_SECRET_ACCESS_KEY']}", "killed"),),
    ),
)


@pytest.fixture
def planted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def spec(method: str = "lora", seed: int = 0, **settings: Any) -> RunSpec:
    """Return a run with a path and a secret in its settings."""
    dataset = DatasetSpec(
        name="newswire",
        options={"api_key": "planted-option", "path": "/home/someone/data/rows.csv"},
    )
    base = Settings(
        backbone="path:/home/someone/models/mini", dataset=dataset, epochs=1
    ).model_copy(update=settings)
    made = MethodSpec(name=method, method="lora", options={"num_virtual_tokens": 4}, lr=1e-3)
    return RunSpec(suite="quickstart", settings=base, method=made, seed=seed)


def points(steps: int) -> list[Point]:
    return [
        Point(metric=name, step=s, value=1 / (s + 1))
        for s in range(steps)
        for name in ("train_loss", "grad_norm")
    ]


def write_run(suite: Path, which: RunSpec, course: list[Point], **changes: Any) -> RunRecord:
    """Leave what a run leaves."""
    folder = suite / which.run_id
    RunFolder(folder).begin()
    writer = PointWriter(folder)
    writer.write(course)
    writer.close()
    fields: dict[str, Any] = {
        "status": "ok",
        "metrics": {"accuracy": 0.5, "energy": None},
        "seconds": 2.0,
    }
    fields |= {"started": "2026-01-01T00:00:00Z", "protocol_id": "abc123"}
    made = RunRecord(run_id=which.run_id, spec=which, **(fields | changes))
    return RunFolder(folder).commit(made)


def follow(
    which: RunSpec, folder: Path, mode: str, results: Path, seconds: float | None = None
) -> AbstractContextManager[None]:
    """Follow a run in the time that is given, also offline, where no sweep does it."""
    tracker = Wandb(mode)
    tracker.live = None if mode == "off" else mode
    tracker.run_seconds = seconds or tracker.run_seconds
    return tracker.follow(which, folder, results)


def publish(
    records: Sequence[RunRecord], shown: Any, mode: str, folder: Path, seconds: float | None = None
) -> Any:
    tracker = Wandb(mode)
    tracker.sweep_seconds = seconds or tracker.sweep_seconds
    return tracker.publish(folder, records, shown)


def plain(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.startswith("_")} for row in history
    ]


def tables() -> tuple[Table, ...]:
    return TABLES


@pytest.mark.usefixtures("planted")
def test_offline_runs_and_tables_read_back(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files hold history, summary, status, group and tables, and no secrets; nothing is
    written elsewhere.
    """
    suite, elsewhere = tmp_path / "out" / "quickstart", tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("WANDB_RUN_ID", "not-asked")
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    unordered = [
        *points(3),
        Point(metric="accuracy", step=0, value=0.25),
        Point(metric="x", step=2, value=None),
    ]
    good = write_run(suite, spec(), unordered)
    with (suite / good.run_id / POINTS).open("a") as file:
        file.write('{"metric": "train_loss", "step": 9, "val')  # torn
    bad = write_run(
        suite,
        spec("full", backbone=f"hub:owner/{SECRETS['HF_TOKEN']}"),
        [],
        status="killed",
        metrics={},
    )

    sentence = publish([good, bad], tables, "offline", suite)
    assert "2 runs and the comparison are kept offline" in sentence
    found = runs_below(suite)
    assert set(found) == {good.run_id, bad.run_id, "comparison"}
    run = found[good.run_id]
    assert plain(run["history"]) == [
        {"train_loss": 1.0, "grad_norm": 1.0, "accuracy": 0.25, "step": 0},
        {"train_loss": 0.5, "grad_norm": 0.5, "step": 1},
        {"train_loss": 1 / 3, "grad_norm": 1 / 3, "step": 2},
    ]
    assert [row["_step"] for row in run["history"]] == [0, 1, 2]
    assert ("*", "step") in run["defined"]
    assert (run["summary"]["accuracy"], run["summary"]["status"]) == (0.5, "ok")
    assert run["summary"]["protocol_id"] == "abc123"
    assert (run["exit"], found[bad.run_id]["exit"]) == (0, 1)
    assert (run["job_type"], run["project"]) == ("lora", "hpml-bench")
    assert run["group"] == group_of(spec())
    config = run["config"]  # the specification without folders, and options named like secrets
    assert config["settings"]["backbone"] == "path:mini"
    assert config["settings"]["dataset"] == {"name": "newswire", "options": {"path": "rows.csv"}}
    assert config["method"] == {
        "name": "lora",
        "method": "lora",
        "options": {"num_virtual_tokens": 4},
        "lr": 1e-3,
    }
    assert found[bad.run_id]["group"] == found["comparison"]["group"]
    assert (run["host"], run["git"]) == ("", "")
    assert not {"environment", "output", "output_raw", "stats"} & run["kinds"]
    assert found["comparison"]["job_type"] == "comparison"
    assert found["comparison"]["tables"] == {
        "summary": {
            "columns": ["method", "accuracy", "note"],
            "data": [
                ["lora", 0.9, None],
                ["full", "nan", "a <b> `c` |"],
            ],  # one line: a block's text is sanitised
        },
        "failures": {"columns": ["run", "why"], "data": [["no [redacted]", "killed"]]},
    }
    logged = [row for row in found["comparison"]["history"] if "summary.sha256" in row]
    assert len(logged) == 1, "the tables are logged once"
    written = b"".join(path.read_bytes() for path in (suite / "wandb").rglob("*") if path.is_file())
    for value in (*SECRETS.values(), "planted-option", "/home/someone"):
        assert value.encode() not in written
    assert [*elsewhere.iterdir(), *home.rglob("*")] == []
    assert nothing_left()


def test_runs_are_kept_by_one_helper_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again, nothing new is written; a new attempt adds its run, and replaces the
    comparison.
    """
    begun: list[publishing.Helper] = []
    begin = publishing.Helper
    monkeypatch.setattr(
        publishing, "Helper", lambda *words: begun.append(begin(*words)) or begun[-1]
    )

    def kept() -> set[str]:
        said = publish(load_records(tmp_path).records, tables, "offline", tmp_path)
        assert "4 runs and the comparison are kept offline" in said
        return {path.name for path in (tmp_path / "wandb").glob("offline-run-*")}

    made_records.write(tmp_path, made_records.sweep(("lora", "full"), 2))
    first = kept()
    assert len(runs_below(tmp_path)) == len(first) == 5
    assert kept() == first
    assert len(begun) == 1
    made_records.write(
        tmp_path, [made_records.record("lora", 0, started="2026-02-02T00:00:00+00:00")]
    )
    second = kept()
    assert len(second - first) == 2
    (replaced,) = first - second
    (renewed,) = (name for name in second - first if name[-16:] == replaced[-16:])
    assert (tmp_path / "wandb" / renewed / "files" / "media" / "table").is_dir(), "the comparison"


def test_nothing_to_publish_leaves_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a run that isn't followed nor an empty folder makes anything; an error is printed,
    never raised.
    """
    suite = tmp_path / "suite"
    assert publish([], tables, "offline", suite) is None
    with follow(spec(), tmp_path, "off", suite):
        pass
    assert not suite.exists()
    suite.write_text("a file")
    assert publish([made_records.record()], tables, "offline", suite) is None
    error = capsys.readouterr().err
    assert error.startswith("wandb: publishing offline failed, the results are not affected: ")
    assert error.count("\n") == 1


# Live


@pytest.mark.usefixtures("planted")
def test_following_a_growing_file(tmp_path: Path) -> None:
    """Points arrive in batches, torn and with garbage between; wandb has each once, and the
    published says so.

    The process that imports wandb has no keys and tokens in its environment.
    """
    which = spec()
    folder = tmp_path / which.run_id
    RunFolder(folder).begin()
    lines = [point.model_dump_json() + "\n" for point in points(4)]
    late = Point(metric="accuracy", step=1, value=0.75).model_dump_json() + "\n"
    with follow(which, folder, "offline", tmp_path):
        environment = one_helper().environ()
        with (folder / POINTS).open("a", buffering=1) as file:
            for text in (
                *lines[:2],
                lines[2][:9],
                lines[2][9:],
                lines[3] + "garbage\n",
                "".join(lines[4:]),
                late,
            ):
                file.write(text)
                file.flush()
                time.sleep(0.15)
            file.write(lines[0][:7])
        made = RunRecord(
            run_id=which.run_id, spec=which, status="ok", metrics={"a": 0.5}, started="s", seconds=1
        )
        RunFolder(folder).commit(made)
    (run,) = runs_below(tmp_path).values()
    both = [{"step": s, "train_loss": 1 / (s + 1), "grad_norm": 1 / (s + 1)} for s in range(4)]
    rows: dict[int, dict[str, float]] = {}
    for row in plain(run["history"]):
        rows[row["step"]] = rows.get(row["step"], {}) | row
    both[1]["accuracy"] = 0.75
    assert [rows[step] for step in sorted(rows)] == both
    assert (run["summary"]["a"], run["name"], run["exit"]) == (0.5, which.run_id, 0)
    entry = Wandb("online").published(tmp_path)[which.run_id]
    assert (entry.id, entry.state, entry.place) == (run["id"], "s", "offline")
    assert not set(SECRETS) & set(environment)
    assert not Path(environment["TMPDIR"]).exists()
    assert nothing_left()


def test_an_interrupted_run_ends_at_once(tmp_path: Path) -> None:
    """Ctrl-C passes through, and nothing is waited for."""
    which = spec()
    began = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        follow(which, tmp_path / which.run_id, "offline", tmp_path, seconds=120),
    ):
        raise KeyboardInterrupt
    assert time.monotonic() - began < 60
    assert nothing_left()


def test_a_run_whose_end_cannot_be_handed_over_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a full disk: one sentence says it, and the run is published again with the sweep."""
    which = spec()
    monkeypatch.setattr(publishing, "LAST", "no folder/last.jsonl")
    with follow(which, tmp_path / which.run_id, "offline", tmp_path):
        write_run(tmp_path, which, points(3))
    assert Wandb("online").published(tmp_path)[which.run_id].place == ""
    assert "its last order can't be written (No such file or directory)" in capsys.readouterr().err
    assert nothing_left()


def helpers() -> list[psutil.Process]:
    """Return this process's living helpers; of what other tests started a zombie may be left."""
    alive = (
        child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE
    )
    return [child for child in alive if "hpml_bench.builtin.trackers.wandb" in child.cmdline()]


def one_helper() -> psutil.Process:
    """Return this process's helper, once it is more than a fork of this process."""
    (helper,) = until(helpers)
    return helper


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_lost_helper_holds_no_run(
    how: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's record is there, one sentence says what went wrong, and the next run doesn't try
    again.
    """
    which = spec()
    began = time.monotonic()
    with follow(which, tmp_path / which.run_id, "offline", tmp_path, seconds=1):
        one_helper().send_signal(how)
        made = write_run(tmp_path, which, points(20_000))  # far more than a pipe holds
    assert time.monotonic() - began < 18  # the patience that is the default is 20
    assert read_record(tmp_path / which.run_id) == made
    assert Wandb("online").published(tmp_path)[which.run_id].place == ""
    with follow(spec(seed=1), tmp_path / "next", "offline", tmp_path):
        assert helpers() == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "live publishing stopped, the results are not affected" in said
    assert nothing_left()


def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    """When the benchmark is killed, the helper, wandb's service and their files go too."""
    code = f"""
import sys, time
sys.path[:0] = {[*filter(None, sys.path)]!r}
from pathlib import Path
import test_wandb as t
with t.follow(t.spec(), Path({str(tmp_path / "run")!r}), "offline", Path({str(tmp_path)!r})):
    time.sleep(300)
"""
    parent = psutil.Popen([sys.executable, "-c", code])
    family = until(lambda: len(found := parent.children(recursive=True)) > 1 and found, 90)
    assert len(family) == 2, "the helper and wandb's own service"
    scratch = Path(
        next(
            p.environ()["TMPDIR"]
            for p in family
            if "hpml_bench.builtin.trackers.wandb" in p.cmdline()
        )
    )
    assert scratch.is_dir()
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert not scratch.exists()


@pytest.mark.usefixtures("planted")
def test_online_sends_points_live_and_then_only_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was sent live isn't sent again; no secret and no name of this machine goes out."""
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        which = spec()
        with follow(which, tmp_path / which.run_id, "online", tmp_path):
            made = write_run(tmp_path, which, points(3))
        live = b"\n".join(body for _, body in server.received)
        server.received.clear()
        sentence = publish([made], list, "online", tmp_path)
        later = b"\n".join(body for _, body in server.received)
    assert b"train_loss" in live
    assert b"train_loss" not in later
    assert b'"comparison"' in later
    assert (
        sentence == f"1 run and the comparison are in wandb's group {group_of(which)} at 127.0.0.1"
    )
    for value in (*SECRETS.values(), "planted-option", "/home/someone", socket.gethostname()):
        assert value.encode() not in live + later
    for path in (tmp_path / "wandb").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
    assert nothing_left()


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("fault", ["invalid key", "silent"])
def test_a_faulty_server_costs_bounded_time_and_one_sentence(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Live publishing is given up, publishing falls back to offline; each is one sentence
    without secrets.
    """
    with serving(fault) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        which = spec()
        with follow(which, tmp_path / which.run_id, "online", tmp_path, seconds=1):
            made = write_run(tmp_path, which, points(3))
            began = time.monotonic()
        assert (
            time.monotonic() - began < 18
        )  # the patience that is the default is 20, the server's silence 60
        assert read_record(tmp_path / which.run_id) == made
        said = publish([made], tables, "online", tmp_path, seconds=1)
    assert "1 run and the comparison are kept offline" in said
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 2
    assert "live publishing stopped" in err
    assert "publishing online failed" in err
    assert "they are kept offline instead" in err
    assert not any(value in err for value in SECRETS.values())
    assert set(runs_below(tmp_path)) == {which.run_id, "comparison"}
    assert nothing_left()


# The whole command


@pytest.mark.parametrize("fault", ["silent", pytest.param("dying", marks=pytest.mark.suites)])
def test_a_faulty_server_leaves_the_results_as_they_are(
    fault: str, swept: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, norms, predictions and accuracy of a sweep of two ranks are to the bit those
    without wandb.
    """
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    met = False
    for patience in (
        1.0,
        5.0,
        20.0,
    ):  # on a busy machine wandb's service may need longer to reach the fault
        monkeypatch.setattr(Wandb, "run_seconds", patience)
        monkeypatch.setattr(Wandb, "sweep_seconds", patience)
        out = tmp_path / str(patience)
        with serving(fault) as server:
            monkeypatch.setenv("WANDB_BASE_URL", server.url)
            said = swept(out, "--wandb", "online")
            met = (
                bool(server.received)
                and server.fault == {"silent": "silent", "dying": "dead"}[fault]
            )
        assert "live publishing stopped, the results are not affected" in said
        assert len(runs_below(out / "colours")) == 2, (
            "it and its comparison are kept offline instead"
        )
        assert nothing_left()
        if met:
            break
    assert met, "the server was never reached"
