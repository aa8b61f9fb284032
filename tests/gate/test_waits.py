"""In which copies the host waits for a device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpml_bench.gate.measure.counts import waits


def on(device: str) -> Any:
    """Return what stands for a tensor there."""
    return SimpleNamespace(device=torch.device(device))


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        ("aten::_to_copy", (on("cuda:0"),), {"device": torch.device("cpu")}, True),
        ("aten::_to_copy", (on("cuda:0"),), {"device": torch.device("cpu"), "non_blocking": True}, False),
        ("aten::_to_copy", (on("cuda:0"),), {"dtype": torch.float64}, False),
        ("aten::_to_copy", (on("cpu"),), {"device": torch.device("cuda", 0)}, False),
        ("aten::_to_copy", (on("cpu"),), {"device": None}, False),
        ("aten::copy_", (on("cpu"), on("cuda:0")), {}, True),
        ("aten::copy_", (on("cpu"), on("cuda:0"), True), {}, False),
        ("aten::copy_", (on("cuda:0"), on("cuda:0")), {}, False),
        ("aten::add", (on("cuda:0"), on("cuda:0")), {}, False),
    ],
)
def test_the_host_waits_for_what_it_copies_from_a_device(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: bool
) -> None:
    """Unless the copy is asked not to block; a copy to a device or within one needs no wait."""
    assert waits(name, args, kwargs) is expected
