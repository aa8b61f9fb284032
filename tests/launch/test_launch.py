"""How a run ended, told from what its ranks left behind; what the fork server imports."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hpml_bench
from helpers import tiny
from hpml_bench.launch import fork_server, launcher
from hpml_bench.records.load import read_record
from hpml_bench.records.run import Check, Outcome, RunError, RunRecord
from hpml_bench.system import gpus
from hpml_bench.training.request import Place, RunRequest


def died(status: int) -> tuple[int, int]:
    return 1, status


def ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failure: Any = None, **files: str
) -> RunRecord:
    """Return the record of a run whose ranks left these files, with `__` for a dash in the
    names.
    """

    def ranks(request: RunRequest, *_: object) -> Any:
        for name, text in files.items():
            (request.folder / f"{name.replace('__', '-')}.json").write_text(text)
        if failure is KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # the watch ends the ranks meanwhile
            return died(-signal.SIGKILL)
        return failure

    monkeypatch.setattr(launcher, "_launch", ranks)
    return tiny.run(tiny.spec(), tiny.NOTHING, folder / "run", place=Place(in_sweep=4))


def test_a_failed_self_check_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that contradict each other are not `ok`; a status that is worse stands."""
    check = Check(name="budget", passed=False, detail="7 samples in 2 steps of 4")
    for status, expected in (("ok", "invalid"), ("diverged", "diverged")):
        outcome = Outcome.model_validate({"status": status, "checks": (check,)})
        assert ended(tmp_path, monkeypatch, outcome=outcome.model_dump_json()).status == expected


OWN = RunError(kind="ValueError", message="the reason", rank=1, traceback="Traceback ...")
OF_GPU = OWN.model_copy(update={"kind": "OutOfMemoryError"})
TORN = {"error__rank0": '{"kind": "Val'}
ENDS: list[tuple[Any, dict[str, str], str, str | RunError]] = [
    (died(1), TORN | {"error__rank1": OWN.model_dump_json()}, "failed", OWN),
    (died(1), TORN | {"error__rank1": OF_GPU.model_dump_json()}, "oom_cuda", OF_GPU),
    (died(-signal.SIGKILL), {}, "killed", "rank 1.*SIGKILL"),
    (died(-signal.SIGSEGV), {}, "killed", "rank 1.*SIGSEGV"),
    (died(3), {}, "failed", "rank 1.*status 3"),
    *(
        (None, {"outcome": text}, "failed", "without an outcome")
        for text in ("", '{"status": "splendid"}', "[" * 5000)
    ),
]


@pytest.mark.parametrize(("failure", "files", "status", "told"), ENDS)
def test_how_ranks_ended_is_told(
    failure: Any,
    files: dict[str, str],
    status: str,
    told: str | RunError,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a rank's own error, whatever another one's torn file says; else by signal or status, with
    the rank.

    Ranks that ended well but left nothing readable did not do the run.
    """
    record = ended(tmp_path, monkeypatch, failure, **files)
    assert record.status == status
    assert (
        record.error == told
        if isinstance(told, RunError)
        else re.search(told, record.error.message)
    )
    assert record.environment["hardware"]
    assert record.environment["hosts"] == [socket.gethostname()]


@pytest.mark.parametrize("status", ["ok", "interrupted"])
def test_an_interrupted_run_is_recorded(
    status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As such; a run that was done when the end was requested is `ok`."""
    files = {"outcome": Outcome(status="ok").model_dump_json()} if status == "ok" else {}
    record = ended(tmp_path, monkeypatch, KeyboardInterrupt, **files)
    assert record.status == status
    assert read_record(tmp_path / "run") == record


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("oldest", [0, 1, 2])
def test_a_lost_peer_is_not_the_cause(first: int, oldest: int, tmp_path: Path) -> None:
    """Whichever rank the launcher saw end first, and whichever wrote first: the error of a
    rank's own is the cause.
    """
    lost = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
    for rank, message in enumerate((lost, "division by zero", lost)):
        path = tmp_path / f"error-rank{rank}.json"
        path.write_text(RunError(kind="Error", message=message, rank=rank).model_dump_json())
        os.utime(path, (1_000_000 + (rank - oldest) % 3,) * 2)
    status, error = launcher.cause(tmp_path, (first, 1))
    assert (status, error.rank, error.message) == ("failed", 1, "division by zero")


# The fork server imports the libraries once, unless one of them would initialise CUDA


def in_fork(
    folder: Path, lines: str, child: str, path: list[str], work: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program with these lines whose fork server does the lines of `child`; return how it
    ended.
    """
    inner = "\n    ".join(child.strip().splitlines())
    (folder / "start.py").write_text(f"""
import gc, os, sys
from hpml_bench.launch import fork_server
from hpml_bench.system import gpus
{lines}

def child_main():
    {inner}

if __name__ == "__main__":
    print(fork_server.run(child_main, ()), fork_server.SAFE_PATH in os.environ)
""")
    paths = os.pathsep.join(
        [*path, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    )
    return subprocess.run(
        [sys.executable, str(folder / "start.py")],
        env=os.environ | {"PYTHONPATH": paths},
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )


STAND_IN = """
import torch

# stands for the start of CUDA, which the real one causes by a question about GPUs
torch.cuda.init = lambda: None
torch.cuda.is_initialized = lambda: True
"""
IMPORTS_IT = """
print("transformers.modeling_utils" in sys.modules, sys.modules["torch"].cuda.is_initialized())
import bitsandbytes
print(sys.modules["torch"].cuda.is_initialized(), flush=True)
"""
PACKAGE = str(Path(hpml_bench.__path__[0]).parent)


def test_the_server_imports_no_bitsandbytes_beside_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for the capability of GPUs, which starts CUDA, and PEFT, else imported too,
    imports it if it is there.
    """
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ({"name": "GPU"},))
    monkeypatch.setattr(fork_server, "find_spec", lambda _: None)
    assert fork_server.preload() == fork_server.PRELOAD
    monkeypatch.setattr(fork_server, "find_spec", lambda _: object())
    _, *libraries = fork_server.preload()
    assert libraries == ["torch", "transformers.modeling_utils"]
    (tmp_path / "bitsandbytes.py").write_text(STAND_IN)
    one_gpu = 'gpus.visible_gpus = lambda: ({"name": "GPU"},)'
    done = in_fork(tmp_path, one_gpu, IMPORTS_IT, [str(tmp_path), PACKAGE])
    assert done.stdout == "True False\nTrue\nNone False\n", done.stderr


@pytest.mark.parametrize("seen", [False, True])
def test_the_server_imports_what_its_parent_would(seen: bool, tmp_path: Path) -> None:
    """A `datasets.py` in the working folder is no library, unless this process looks for its
    modules there too.

    Collections of a rank don't go through what the server imported.
    """
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "shadow.py").write_text(
        "from pathlib import Path; Path('imported').touch()"
    )
    preload = 'fork_server.PRELOAD = ["hpml_bench.launch.fork_server_main", "shadow"]'
    path = [PACKAGE, *([str(tmp_path / "work")] if seen else [])]
    frozen = "assert gc.get_freeze_count() > 1000"
    done = in_fork(tmp_path, preload, frozen, path, tmp_path / "work")
    assert done.stdout == "None False\n", done.stderr
    assert (tmp_path / "work" / "imported").exists() is seen
