"""Devices found without torch, settings made definite, what a record says of the machine;
packages; other kernels.
"""

import json
import os
import re
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from helpers import tiny
from hpml_bench.suite import devices
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.system import environment, gpus, packages
from hpml_bench.system.errors import UserError


def open_settings(**changes: Any) -> Any:
    open_values = {"device": "auto", "world_size": None, "threads": None, "precision": "auto"}
    return tiny.settings(**(open_values | changes))


def on_machine(
    patch: pytest.MonkeyPatch, cores: int, cards: int = 0, capability: str = "9.0", flags: str = ""
) -> None:
    """Let this be a machine of so many cores and GPUs."""
    found = tuple(
        {"name": "GPU", "memory_mb": 80_000, "capability": capability, "index": i}
        for i in range(cards)
    )
    patch.setattr(gpus, "visible_gpus", lambda: found)
    patch.setattr(environment, "cores", lambda: cores)
    patch.setattr(environment, "_cpu", lambda: {"model name": "CPU", "flags": flags})


@pytest.mark.parametrize(
    ("machine", "changes", "found"),
    [
        ({"cores": 16, "cards": 4}, {}, ("cuda", 4, 4, "bf16")),
        ({"cores": 16, "cards": 4, "capability": "7.5"}, {}, ("cuda", 4, 4, "fp32")),
        ({"cores": 8}, {}, ("cpu", 2, 4, "fp32")),
        (
            {"cores": 1, "flags": "avx512f amx_bf16"},
            {},
            ("cpu", 1, 1, "fp32"),
        ),  # flags don't tell what is faster
        (
            {"cores": 64, "cards": 8},
            {"world_size": 16, "global_batch": 16},
            ("cuda", 16, 8, "bf16"),
        ),  # 8 ranks here
    ],
)
def test_what_is_left_open_is_the_machines(
    machine: dict[str, Any],
    changes: dict[str, Any],
    found: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rank a GPU, the cores shared out, bf16 where every GPU has it; without GPUs two ranks,
    or one on one core.
    """
    on_machine(monkeypatch, **machine)
    own = resolve_devices(open_settings(**changes), here=8 if changes else None)
    assert (own.device, own.world_size, own.threads, own.precision) == found
    assert resolve_devices(tiny.settings()) == tiny.settings(), "what is asked for stands"


@pytest.mark.parametrize(
    ("share", "cores"), [("1", 1), ("0", 1), ("999999", None), ("", None), ("x", None)]
)
def test_a_jobs_share_of_the_cores_counts(
    share: str, cores: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an engine gives some of them and binds to none; it can't be more than there are."""
    monkeypatch.delenv("HPML_BENCH_CORES", raising=False)
    all_here = environment.cores()
    monkeypatch.setenv("HPML_BENCH_CORES", share)
    assert environment.cores() == (cores or all_here)


@pytest.mark.parametrize(
    ("cards", "here", "changes", "words"),
    [
        (0, None, {"device": "cuda"}, "device is cuda, but no GPU is visible.*--device cpu"),
        (1, None, {"device": "cuda", "world_size": 2}, "world_size is 2, but 1 GPU.*--nproc 1"),
        (5, None, {}, "global_batch 12 is not a multiple of the 5 ranks"),
        (
            8,
            9,
            {"world_size": 18, "global_batch": 18},
            "9 of 18 ranks are on this machine, but 8 GPU.* visible",
        ),
    ],
)
def test_what_the_machine_cannot_do_is_one_sentence(
    cards: int,
    here: int | None,
    changes: dict[str, Any],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what is there, and what to do."""
    on_machine(monkeypatch, cores=8, cards=cards)
    with pytest.raises(UserError, match=words) as caught:
        resolve_devices(open_settings(**changes), here=here)
    assert "\n" not in str(caught.value)


def test_a_description_is_json_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardware, versions, threads and process settings, and bitsandbytes where PEFT imports it;
    no other variable.
    """
    import torch

    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    monkeypatch.setenv("MALLOC_SECRET", "planted-secret")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    text = json.dumps(environment.describe())
    assert "planted" not in text
    found = json.loads(text)
    assert found["hardware"]["cores"] == environment.cores()
    assert found["packages"]["torch"]
    assert found["kernel"] == os.uname().release
    assert found["threads"] == {"intra_op": 3, "inter_op": torch.get_num_interop_threads()}
    assert found["process"]["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS")
    monkeypatch.setattr(environment, "installed", lambda name: f"{name} 1")
    assert environment.describe()["packages"]["bitsandbytes"] == "bitsandbytes 1"
    monkeypatch.setattr(environment, "installed", lambda _: None)
    assert set(environment.describe()["packages"]) == set(environment.PACKAGES)


def test_the_users_own_variables_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process settings fill gaps only."""
    for key in environment.PROCESS_ENVIRONMENT:
        monkeypatch.setenv(key, "kept")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    environment.set_process_environment()
    assert os.environ["MALLOC_TOP_PAD_"] == "kept"
    assert (
        os.environ["MALLOC_TRIM_THRESHOLD_"]
        == environment.PROCESS_ENVIRONMENT["MALLOC_TRIM_THRESHOLD_"]
    )


@pytest.mark.parametrize(
    ("cards", "own", "expected"),
    [
        (1, {}, "expandable_segments:True"),
        (1, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        (1, {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, None),
        (0, {}, None),
    ],
)
def test_the_allocator_of_gpus_lets_segments_grow(
    cards: int, own: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that batches of ever new shapes leave no holes; without a GPU, or where either name is
    set, as it was.
    """
    on_machine(monkeypatch, cores=4, cards=cards)
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    environment.set_cuda_environment()
    assert environment.describe()["process"]["PYTORCH_CUDA_ALLOC_CONF"] == expected
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)


def test_a_run_names_its_hosts() -> None:
    """A record says on which hosts its run was, between which costs aren't compared; what the
    gate compares doesn't.
    """
    over = environment.NodeLayout(("n1", "n2"), (1, 1), "eth0")
    assert environment.of_run(over)["hosts"] == ["n1", "n2"]
    assert environment.of_run()["hosts"] == [socket.gethostname()]
    assert "hosts" not in environment.describe()


# Commands that install missing packages name the packages themselves


def test_an_extra_is_installed_by_the_names_and_lower_bounds_of_its_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a clone and for a wheel; `pip install hpml-bench[...]` would install a stranger's
    package.
    """
    assert re.fullmatch(
        r"pip install 'gguf>=[\d.]+' 'optuna>=[\d.]+'", packages.install_extras("gguf", "tune")
    )
    monkeypatch.setattr(
        packages, "requirements", Mock(side_effect=PackageNotFoundError(packages.PACKAGE))
    )
    assert packages.install_extras("quant") == "pip install '.[quant]' in the clone"
    root = Path(__file__).parents[2]
    sources = [*root.glob("hpml_bench/**/*.py"), *root.glob("docs/*.md"), root / "README.md"]
    sources += [*root.glob("benchmarks/**/*.py"), *root.glob("benchmarks/suites/*.yaml")]
    pattern = re.compile(r"pip install [\"']?hpml-bench")
    assert not [source for source in sources if pattern.search(source.read_text())]


# A sweep where the kernel lacks what only Linux has: prctl, the cores that a process may use, and
# /proc

TAKEN_AWAY = """
import ctypes, os, pathlib, sys

print("taken away", file=sys.stderr)
for name in ("sched_getaffinity", "sched_setaffinity", "waitid"):
    delattr(os, name)
for call in ("read_text", "write_text", "stat"):
    def refused(path, *of, own=getattr(pathlib.Path, call), **how):
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(str(path))
        return own(path, *of, **how)

    setattr(pathlib.Path, call, refused)
find = ctypes.CDLL.__getattr__

def without(library, name):
    if name in {"prctl", "adjtimex", "malloc_trim"}:
        raise AttributeError(name)
    return find(library, name)

ctypes.CDLL.__getattr__ = without
"""
"""Runs at the start of every process of the sweep."""


def test_a_sweep_needs_nothing_of_linux(tmp_path: Path) -> None:
    """A run of two ranks, by a job in its part of the machine, ends well."""
    (tmp_path / "sitecustomize.py").write_text(TAKEN_AWAY)
    suite = tiny.local_suite(tmp_path)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    }
    words = ["run-all", str(suite), "--seeds", "1", "--methods", "head", "--parallel", "2"]
    command = [sys.executable, "-m", "hpml_bench", *words, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "taken away" in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert {record.status for record in tiny.records(tmp_path / "out").values()} == {"ok"}


@pytest.mark.parametrize(
    ("build", "machine", "words"),
    [
        ("2.13.0+rocm7.0", ("linux", "x86_64"), "AMD GPUs (ROCm)"),
        ("2.13.0+xpu", ("linux", "x86_64"), "Intel GPUs (XPU)"),
        ("2.13.0", ("darwin", "arm64"), "Apple GPUs (MPS)"),
        ("2.13.0+cpu", ("linux", "x86_64"), ""),
        ("2.13.0+cu130", ("linux", "x86_64"), ""),
    ],
)
def test_other_gpus_are_told(
    build: str,
    machine: tuple[str, str],
    words: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the installed torch: runs are on the CPU, as one sentence says, once; and where a GPU
    was asked for.
    """
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ())
    monkeypatch.setattr(gpus, "version", lambda _: build)
    monkeypatch.setattr(gpus.sys, "platform", machine[0])
    monkeypatch.setattr(gpus.platform, "machine", lambda: machine[1])
    devices._warn_once.cache_clear()
    for _ in range(2):
        assert (
            devices.resolve_devices(tiny.settings(device="auto", precision="fp32")).device == "cpu"
        )
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == bool(words)
    assert all(words in line and "CPU" in line for line in told)
    with pytest.raises(UserError) as caught:
        devices.resolve_devices(tiny.settings(device="cuda", precision="fp32"))
    assert words in str(caught.value)


WATCHED = """
import logging, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        heard = logging.getLogger("bitsandbytes").isEnabledFor(logging.WARNING)
        if name == "peft" and heard:
            sys.exit("PEFT is imported, and with it bitsandbytes, which warns")

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import hpml_bench.training.worker",
        "from hpml_bench.data.prepare import silence; silence(); import hpml_bench.training.model",
        "from hpml_bench.builtin.methods.peft import config_class; config_class('LORA')",
    ],
)
def test_bitsandbytes_is_silent_when_peft_imports_it(imports: str) -> None:
    """Also where nothing is quantised: its warning of missing kernels is no line of ours."""
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED + imports], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "gemm" not in ended.stdout + ended.stderr
