"""The fork server imports the libraries once, unless one of them would initialise CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hpml_bench
from hpml_bench.launch import fork_server
from hpml_bench.system import gpus

STAND_IN = """
import torch

torch.cuda.init = lambda: None  # stands for the start of CUDA, which the real one causes by a question about GPUs
torch.cuda.is_initialized = lambda: True
"""
START = """
import multiprocessing
import sys

from hpml_bench.launch import fork_server
from hpml_bench.system import gpus

gpus.visible_gpus = lambda: ({"name": "GPU"},)


def child_main() -> None:
    print("transformers.modeling_utils" in sys.modules, sys.modules["torch"].cuda.is_initialized())
    import bitsandbytes
    print(sys.modules["torch"].cuda.is_initialized(), flush=True)


if __name__ == "__main__":
    fork_server.start_fork_server()
    child = multiprocessing.get_context("forkserver").Process(target=child_main)
    child.start()
    child.join()
"""
"""Says whether a fork of the server has the libraries, and CUDA before and after it imports bitsandbytes."""


def test_bitsandbytes_is_not_imported_by_the_server_where_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for the capability of GPUs, which starts CUDA, and PEFT, else imported too, imports it if it is there."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ({"name": "GPU"},))
    monkeypatch.setattr(fork_server, "find_spec", lambda _: None)
    assert fork_server.preload() == fork_server.PRELOAD
    monkeypatch.setattr(fork_server, "find_spec", lambda _: object())
    _, *libraries = fork_server.preload()
    assert libraries == ["torch", "transformers.modeling_utils"]
    (tmp_path / "bitsandbytes.py").write_text(STAND_IN)
    (tmp_path / "start.py").write_text(START)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "start.py")], env=os.environ | {"PYTHONPATH": path}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "True False\nTrue\n", done.stderr


SHADOW = """
import gc
import multiprocessing

import os

from hpml_bench.launch import fork_server


def child_main() -> None:
    assert gc.get_freeze_count() > 1000  # collections of a rank don't go through what the server imported


fork_server.PRELOAD = ["hpml_bench.launch.fork_server_main", "shadow"]
if __name__ == "__main__":
    fork_server.start_fork_server()
    child = multiprocessing.get_context("forkserver").Process(target=child_main)
    child.start()
    child.join()
    print(child.exitcode, fork_server.SAFE_PATH in os.environ)
"""


@pytest.mark.parametrize("seen", [False, True])
def test_the_server_imports_what_its_parent_would(seen: bool, tmp_path: Path) -> None:
    """A `datasets.py` in the working folder is no library, unless this process looks for its modules there too."""
    (tmp_path / "work").mkdir()
    (tmp_path / "start.py").write_text(SHADOW)
    (tmp_path / "work" / "shadow.py").write_text("from pathlib import Path; Path('imported').touch()")
    path = [str(Path(hpml_bench.__path__[0]).parent), *([str(tmp_path / "work")] if seen else [])]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "start.py")], env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        cwd=tmp_path / "work", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "0 False\n", done.stderr
    assert (tmp_path / "work" / "imported").exists() is seen
