"""CUDA as torch finds it: whether torch can compute on the GPUs, and which one a device is."""

from __future__ import annotations

import torch

from hpml_bench.system.errors import UserError
from hpml_bench.system.text import first_line


def check_gpus(ranks: int, own: int | None = None) -> None:
    """Check by a product on each rank's GPU that torch can compute there; `own` checks this one GPU alone.

    It initialises CUDA: call it in a process that ends and has forked no rank.

    Raises:
        UserError: torch was built without CUDA, or not for such a GPU or driver; it sees fewer GPUs than ranks; or CUDA
            was initialised in the process from which this one was forked.

    """
    if torch.cuda._is_in_bad_fork():
        raise UserError(
            "a library has initialised CUDA when it was imported in the process from which ranks are forked, and "
            "they can't use it any more; uninstall the package that does so, or use --device cpu"
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        seen = torch.cuda.device_count()
        for index in range(min(ranks, seen)) if own is None else {own} & {*range(seen)}:
            square = torch.ones(8, 8, device=torch.device("cuda", index))
            (square @ square).sum().item()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"torch {torch.__version__} can't compute on the GPU that the driver shows: {first_line(error)}; install a "
            "torch for this GPU and driver (https://pytorch.org), or use --device cpu"
        ) from None
    if seen < ranks:
        raise UserError(f"torch sees {seen} GPU(s), but there are {ranks} ranks; use --nproc {seen}")


def release(device: torch.device) -> None:
    """Give memory that torch's allocator holds and no tensor uses back to the device; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def leave_free(share: float, device: torch.device) -> None:
    """Limit tensors to all but a share of a device's memory from now on; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 - share, device)


def uuid(device: torch.device) -> str:
    """Return the UUID of a CUDA device, without a prefix."""
    return str(torch.cuda.get_device_properties(device).uuid)
