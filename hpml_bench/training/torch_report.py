"""Report of what torch finds on this machine, printed for `doctor` by `python -m
hpml_bench.training.torch_report`.

A line of JSON for each part as soon as it is known: a torch that doesn't fit the processor or the
driver may end its process.
"""

import json
import os
import statistics
from collections.abc import Callable
from functools import partial
from importlib import import_module

from hpml_bench.system import environment
from hpml_bench.system.text import first_line
from hpml_bench.training import products

GPU_TIMES, GPU_SIZE = (
    8,
    4096,
)  # products timed on a GPU in each precision, and the size of their square factors


def main() -> None:
    """Print a line for each part; one that fails is under its name with `_error` appended."""
    output = os.dup(1)
    os.dup2(2, 1)  # libraries print too
    environment.set_cuda_environment()
    parts: dict[str, Callable[[], object]] = {
        "torch": lambda: str(import_module("torch").__version__),
        "gpus": _gpus,
        "cpu": _cpu,
        "cuda": _cuda,
        "worker": lambda: bool(import_module("hpml_bench.training.worker")),
    }
    for name, part in parts.items():
        try:
            found = {name: part()}
        except Exception as error:
            found = {f"{name}_error": f"{type(error).__name__}: {first_line(error)}"}
        os.write(output, f"{json.dumps(found)}\n".encode())


def _gpus() -> list[dict[str, str]]:
    import torch

    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [{"name": gpu.name, "uuid": str(gpu.uuid)} for gpu in found]


def _cpu() -> dict[str, float]:
    """Return precision -> seconds of a product on the CPU."""
    found = products.measure(products.shape_of({}, products.ROWS), environment.cores())
    return {"fp32": found.fp32_seconds, "bf16": found.bf16_seconds}


def _cuda() -> dict[str, float]:
    """Return precision -> seconds of a product on the first GPU; nothing without one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    from hpml_bench.training.clock import one_at_a_time

    wide = torch.rand(GPU_SIZE, GPU_SIZE, device="cuda")
    half = wide.bfloat16()
    seconds = {}
    for name, factor in (("fp32", wide), ("tf32", wide), ("bf16", half)):
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        factor @ factor  # the first sets up the kernel
        product = partial(torch.matmul, factor, factor)
        seconds[name] = statistics.median(one_at_a_time([product] * GPU_TIMES, wide.device))
    return seconds


if __name__ == "__main__":
    main()
