"""What the driver shows of GPUs: which are chosen, MIG, and calls that fail."""

import math
import os
import sys

import pynvml
import pytest

from helpers.nvml import Card, Machine, card
from hpml_bench.builtin.probes import energy, memory
from hpml_bench.system import environment, gpus
from hpml_bench.system.errors import UserError

MIG = card(
    "GPU-a", instances=(card("MIG-p", total=10e9, used=1e9, joules=None), card("MIG-q", total=20e9))
)
ABC = tuple(card(f"GPU-{letter}") for letter in "abc")
CHOSEN: list[tuple[tuple[Card, ...], str | None, str]] = [
    *(
        (ABC, *case)
        for case in (
            (None, "GPU-a GPU-b GPU-c"),
            ("", ""),
            ("2,0", "GPU-c GPU-a"),
            ("GPU-b", "GPU-b"),
            ("-1", ""),
            (" 1 ", "GPU-b"),
            ("0,0", "GPU-a"),
            ("GPU-a,0", "GPU-a"),
            ("0,7,1", "GPU-a"),
            ("0,-1,1", "GPU-a"),
            ("MIG-none", ""),
        )
    ),
    ((card("GPU-a", forbidden=True), *ABC[1:]), "0", "GPU-b"),  # as in a control group of Slurm's
    *(
        ((MIG,), *case)
        for case in (
            (None, "MIG-p MIG-q"),
            ("MIG-q", "MIG-q"),
            ("MIG-q,MIG-p", "MIG-q MIG-p"),
            ("0", "MIG-p"),
            ("MIG-none", ""),
        )
    ),
    ((MIG, *ABC[1:]), None, "GPU-b GPU-c"),
]
"""Cards, CUDA_VISIBLE_DEVICES, and the devices that processes can share."""


@pytest.mark.parametrize(("cards", "visible", "shared"), CHOSEN)
def test_visible_devices_count(
    cards: tuple[Card, ...], visible: str | None, shared: str, install_cards: Machine
) -> None:
    """By index or UUID, in order, each once, up to the first unknown name, as CUDA does; in MIG
    mode one instance.
    """
    install_cards(*cards, visible=visible)
    assert [gpu["uuid"] for gpu in gpus.shareable_gpus()] == shared.split()
    found = gpus.visible_gpus()
    assert [gpu["uuid"] for gpu in found] == shared.split()[: 1 if "MIG" in shared else None]
    assert all(gpu["capability"] == "9.0" for gpu in found)
    memory = {"MIG-p": 10_000, "MIG-q": 20_000}
    assert all(gpu["memory_mb"] == memory.get(gpu["uuid"], 80_000) for gpu in found)


def test_what_the_driver_does_not_say_is_unknown(
    install_cards: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory of a card's own (GB10), a capability, a limit, a call that an old or a new pynvml
    doesn't have.

    A driver that answers nothing has no GPU, nor a version; without pynvml one sentence says so.
    """
    install_cards(card("GPU-a", total=None, capability=None, watts=None))
    (gpu,) = gpus.visible_gpus()
    assert (gpu["memory_mb"], gpu["capability"], gpu["power_limit_w"]) == (None, None, None)
    assert not environment.has_bf16("cuda")
    assert environment.describe()["hardware"]["gpus"] == [
        {"name": "card GPU-a", "memory_mb": None, "capability": None}
    ]
    install_cards(card("GPU-a")).broken = True
    assert (gpus.visible_gpus(), environment.describe()["driver"]) == ((), None)
    assert math.isnan(energy.gpu_joules("a"))
    install_cards(card("GPU-a"))
    monkeypatch.delattr(pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons")
    assert gpus.states()[0]["slowed_by"] is None
    gpus.shut_down()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UserError, match="nvidia-ml-py, by which GPUs are found, is missing"):
        gpus.nvml()


def test_nvml_is_initialised_once_in_each_process(
    install_cards: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All readings of a process share one; it is shut down before a fork, so that the child
    initialises its own.
    """
    install_cards(card("GPU-a"))
    calls: list[str] = []
    for name in ("nvmlInit", "nvmlShutdown"):
        monkeypatch.setattr(pynvml, name, lambda name=name: calls.append(name))
    for _ in range(3):
        energy.gpu_joules("a")
        gpus.states()
        gpus.driver()
    assert calls == ["nvmlInit"]
    child = os.fork()
    if child == 0:
        known = energy.gpu_joules("a") == 100
        os._exit(0 if known and calls == ["nvmlInit", "nvmlShutdown", "nvmlInit"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert calls == ["nvmlInit", "nvmlShutdown"]
    gpus.shut_down()
    assert calls == ["nvmlInit", "nvmlShutdown"]


def test_readings_are_of_the_device_that_cuda_names(install_cards: Machine) -> None:
    """By UUID, with or without a prefix, in whatever order CUDA counts; a whole card is not
    charged to an instance.
    """
    install_cards(
        card("GPU-a", joules=5.0, used=1e9), card("GPU-b", joules=7.0, used=2e9), visible="1,0"
    )
    assert [energy.gpu_joules(uuid) for uuid in ("a", "b", "GPU-b")] == [5, 7, 7]
    assert [memory.nvml_used_mb(uuid) for uuid in ("a", "b")] == [1000, 2000]
    assert math.isnan(energy.gpu_joules("c"))
    install_cards(MIG)
    assert memory.nvml_used_mb("p") == 1000
    assert all(
        map(math.isnan, (energy.gpu_joules("p"), memory.nvml_used_mb("a"), energy.gpu_joules("a")))
    )


def test_settings_of_gpus_are_recorded(
    install_cards: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of CUDA and NCCL where they are set, versions, power limits; no key, and nothing
    without a GPU.
    """
    shown = {
        "CUDA_LAUNCH_BLOCKING": "1",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "NCCL_ALGO": "Ring",
    }
    secret = {"NCCL_API_KEY": "planted-secret", "NCCL_NET": "https://user:planted@host"}
    for name, value in (shown | secret).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", raising=False)
    install_cards(card("GPU-a"), card("GPU-b", watts=None))
    found = environment.describe()
    process = found["process"]
    assert shown.items() <= process.items()
    assert "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE" not in process
    assert "planted" not in str(found)
    assert found["power_limits_w"] == [700, None]
    state = {
        "clock_mhz": 1200,
        "highest_clock_mhz": 1980,
        "slowed_by": ["power limit"],
        "ecc": None,
        "processes": 2,
    }
    assert found["cards"] == [state] * 2
    install_cards()
    assert "power_limits_w" not in environment.describe()


def test_versions_of_libraries_are_torchs(
    install_cards: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA, cuDNN and NCCL as torch has them, whether attention may be cuDNN's; of a torch
    without CUDA none.
    """
    import torch

    install_cards(card("GPU-a"))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert environment.describe()["libraries"] == {}
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 5))
    versions = {"cuda": "12.8", "cudnn": "91002", "nccl": "2.27.5"}
    for enabled in (False, True):
        monkeypatch.setattr(
            torch.backends.cuda, "cudnn_sdp_enabled", lambda enabled=enabled: enabled
        )
        attention = "on" if enabled else "off"
        assert environment.describe()["libraries"] == {**versions, "cudnn_attention": attention}
