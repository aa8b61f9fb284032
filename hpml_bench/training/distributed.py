"""Ranks of a run: their process group, GPUs and nodes; and a model wrapped for them: by DDP, FSDP,
or not for one.

Gradients are exchanged by gloo on CPU and NCCL on GPU, all else by gloo. Only tensors are sent;
nothing is unpickled. FSDP (`fully_shard`; ZeRO stage 3, Rajbhandari et al. 2020, arXiv:1910.02054)
gives each rank 1 / ranks of weights, gradients and optimizer states; a block's weights are whole
during a pass of it. Gradients are DDP's to rounding.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from hpml_bench.plugins.group import Group
from hpml_bench.plugins.model import TaskModel
from hpml_bench.suite.settings import Settings
from hpml_bench.system import environment, network
from hpml_bench.system.errors import Unsupported, UserError, out_of_memory, without_cublas_handle
from hpml_bench.system.text import digest, first_line

COLLECTIVE_TIMEOUT = timedelta(
    hours=1
)  # others wait while rank 0 saves a large model to a slow disk
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""Backends by the run's device. A rank that waits in NCCL keeps its GPU busy, beside one that is
measured alone; in gloo it sleeps.
"""
# for which the interpreter's lock is released before a group is left: four switch intervals
DROP_SECONDS = 0.02
HANDLE_BYTES = 500_000_000
"""Bytes of a card below which cuBLAS may find no memory for its handle, kernels included. An
estimate: not measured on a card by this project.
"""
LENGTH = 256  # most bytes of a rank's text about its node


def lacked_memory(error: BaseException) -> bool:
    """Return whether an exception is for lack of memory; that cuBLAS has no handle is, where the
    card is full or an allocation failed before.
    """
    if out_of_memory(error):
        return True
    if not without_cublas_handle(str(error)):
        return False
    if torch.cuda.memory_stats().get("num_ooms", 0) > 0:
        return True
    try:
        free, _ = torch.cuda.mem_get_info()
    except RuntimeError:  # after a device-side assert each call of CUDA fails
        return False
    return free < HANDLE_BYTES


@contextmanager
def process_group(settings: Settings) -> Iterator[Group]:
    """Join the group that the launcher (ours, torchrun) described in the environment; leave it
    if the body succeeds.
    """
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    cuda = settings.device == "cuda"
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if int(os.environ.get("LOCAL_WORLD_SIZE", world)) == world:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: no host name is looked up
    elif (interface := network.interface_to(os.environ["MASTER_ADDR"])) not in {None, "lo"}:
        os.environ.setdefault(
            "GLOO_SOCKET_IFNAME", str(interface)
        )  # a host's own name may stand for its loopback
    # a rank without peers needs no listening store: torch's would listen on all addresses
    alone: dict[str, Any] = {"store": HashStore(), "rank": 0, "world_size": 1} if world == 1 else {}
    dist.init_process_group(
        BACKENDS[device.type],
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if cuda else None,
        **alone,
    )
    # after an error the group is not left: NCCL would wait for peers that wait for this rank; the
    # caller ends it
    yield Group(rank, world, device, int(os.environ.get("GROUP_WORLD_SIZE", "1")))
    # gloo's threads need the interpreter's lock to drop their last work; destroying a group holds
    # it and joins them
    time.sleep(DROP_SECONDS)
    dist.destroy_process_group()


def check_gpus(ranks: int, own: int | None = None) -> None:
    """Check by a product on each rank's GPU that torch can compute there; `own` checks this one GPU
    alone.

    It initialises CUDA: call it in a process that ends and has forked no rank. Raises UserError:
    torch can't compute, sees fewer GPUs than ranks, or CUDA was initialised in the process from
    which this one was forked.
    """
    if torch.cuda._is_in_bad_fork():
        raise UserError(
            "a library has initialised CUDA when it was imported in the process from which ranks "
            "are forked, and "
            "they can't use it any more; uninstall the package that does so, or use --device cpu"
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        seen = torch.cuda.device_count()
        for index in range(min(ranks, seen)) if own is None else {own} & {*range(seen)}:
            square = torch.ones(8, 8, device=f"cuda:{index}")
            (square @ square).sum().item()
    except (RuntimeError, AssertionError) as error:
        advice = "install a torch for this GPU and driver (https://pytorch.org)"
        if "operation not supported" in str(
            error
        ):  # virtual GPUs and Jetson refuse expandable segments
            advice = f"set {environment.CUDA_ALLOCATOR[0]}=expandable_segments:False"
        raise UserError(
            f"torch {torch.__version__} can't compute on the GPU that the driver shows: "
            f"{first_line(error)}; {advice}, or use --device cpu"
        ) from None
    if seen < ranks:
        raise UserError(
            f"torch sees {seen} GPU(s), but there are {ranks} ranks; use --nproc {seen}"
        )


def release(device: torch.device) -> None:
    """Give memory that torch's allocator holds and no tensor uses back to the device; nothing on
    a CPU.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()


def leave_free(share: float, device: torch.device) -> None:
    """Limit tensors to all but a share of a device's memory from now on; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 - share, device)


def uuid(device: torch.device) -> str:
    """Return the UUID of a CUDA device, without a prefix."""
    return str(torch.cuda.get_device_properties(device).uuid)


def over_nodes(group: Group) -> environment.NodeLayout | None:
    """Return the layout of the ranks over nodes; None where all are on one. All ranks call it."""
    if group.nodes == 1:
        return None
    here = socket.gethostname()
    texts = gathered(group, f"{os.environ['GROUP_RANK']}\t{here}")
    numbers, hosts = zip(*(text.split("\t") for text in texts), strict=True)
    ranks = dict(sorted(Counter(map(int, numbers)).items()))
    first = [numbers.index(str(number)) for number in ranks]
    names = tuple(hosts[rank] for rank in first)
    others = [name for name in names if name != here]
    between = network.interconnect([os.environ.get("MASTER_ADDR", ""), *others])
    hardware = gathered(group, digest([environment.hardware(), between], 12))
    per_node = tuple(hardware[rank] for rank in first)
    unlike = () if len(set(per_node)) == 1 else per_node
    counts = tuple(ranks.values())
    return environment.NodeLayout(
        hosts=names, ranks_per_node=counts, interconnect=between, unlike=unlike
    )


def gathered(group: Group, text: str) -> list[str]:
    """Return the texts of all ranks, each cut to `LENGTH` bytes."""
    row = torch.tensor([*text.encode()[:LENGTH].ljust(LENGTH, b"\0")], dtype=torch.uint8)
    return [
        bytes(line.tolist()).rstrip(b"\0").decode(errors="replace") for line in group.gather(row)
    ]


# Wrapping: gradients are the mean over ranks after a backward pass, but for one in DDP's
# `no_sync()`


def is_sharded(settings: Settings) -> bool:
    """Return whether a run is sharded, whose settings are resolved: a single rank is not."""
    return settings.sharding != "none" and (settings.world_size or 1) > 1


def wrapped(model: TaskModel, group: Group, sharding: str) -> Any:
    """Return a model wrapped by the setting `sharding`; one rank's is itself: DDP would cost
    time and memory.
    """
    if group.world == 1:
        return model
    return fsdp(model, group) if sharding == "fsdp" else ddp(model, group)


def ddp(model: TaskModel, group: Group) -> DistributedDataParallel:
    own = [group.device.index] if group.device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=own, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def fsdp(model: TaskModel, group: Group) -> TaskModel:
    """Shard a model in place, by blocks, before the optimizer is made; Unsupported where FSDP
    can't have it.
    """
    mesh, found = mesh_of(group.device.type), [*blocks(model)]
    if _share_weights(model, found):
        raise Unsupported("it can't be sharded: its blocks share weights")
    try:
        for block in found:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=False)
    except (NotImplementedError, ValueError) as error:
        raise Unsupported(f"it can't be sharded: {first_line(error)}") from error
    return model


def mesh_of(device: str) -> DeviceMesh:
    """Return all ranks of the process group as a mesh of one dimension."""
    return _mesh(device, dist.group.WORLD)


@cache
def _mesh(device: str, group: dist.ProcessGroup) -> DeviceMesh:
    return init_device_mesh(device, (group.size(),))


def _share_weights(model: nn.Module, found: Sequence[nn.Module]) -> bool:
    """Return whether a weight is in two of a model's blocks, or in one and outside: FSDP would
    make two of it.
    """
    outside = {*model.modules()}.difference(*(block.modules() for block in found))
    parts = [{*block.parameters()} for block in found]
    parts.append({weight for module in outside for weight in module.parameters(recurse=False)})
    return sum(map(len, parts)) > len([*model.parameters()])


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of a model's outermost lists of modules: the blocks of a transformer."""
    for child in module.children():
        inner = isinstance(child, nn.ModuleList) and not any(
            isinstance(of, nn.ModuleList) for of in child
        )
        yield from child.children() if inner else blocks(child)


@dataclass(frozen=True)
class Joining(Group):
    """A group that, before each collective operation, joins in gathering weights for ranks that
    have passes left.
    """

    blocks: Sequence[Any] = ()

    def gather(self, local: Tensor) -> Tensor:
        self.join()
        return super().gather(local)

    def barrier(self) -> None:
        self.join()
        super().barrier()

    def join(self) -> None:
        """Gather the weights of each block that another rank passes through, until all ranks
        have come here.
        """
        while (number := largest_number(-1)()) >= 0:
            self.blocks[number].unshard()
            self.blocks[number].reshard()


def largest_number(own: int) -> Callable[[], int]:
    """Send a rank's number to all, without waiting; what is returned waits for the largest of
    the ranks' numbers.
    """
    found = torch.tensor(own)  # on the CPU: no GPU waits
    work = cast(dist.Work, dist.all_reduce(found, dist.ReduceOp.MAX, async_op=True))

    def wait() -> int:
        work.wait()
        return int(found)

    return wait


@contextmanager
def unequal_passes(model: nn.Module, group: Group) -> Iterator[Group]:
    """Let ranks do unequal numbers of forward passes, without gradients, in the body; all ranks
    call it.

    Yields the group for the body's collective operations. Of a sharded model each block is whole
    during its pass, and what is in no block is throughout. FSDP doesn't see these passes: it
    expects equal ones on all ranks, from which it derives what it gathers ahead in the next
    backward pass.
    """
    if not isinstance(model, FSDPModule):
        yield group
        return
    joining = Joining(**vars(group), blocks=[part for part in _parts(model) if part is not model])
    with _without_fsdp(model):
        for number, block in enumerate(joining.blocks):
            block.register_forward_pre_hook(partial(_gather, number), prepend=True)
            block.register_forward_hook(lambda block, *_: block.reshard())
        model.unshard()
        yield joining
        joining.join()
        model.reshard()


def _gather(number: int, block: Any, _: object) -> None:
    largest_number(number)
    block.unshard()


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Keep all weights of a sharded model whole in the body, as after training; all ranks call
    it.
    """
    with _without_fsdp(model):
        for part in _parts(model):
            part.unshard()
        yield
        for part in _parts(model):
            part.reshard()


def end_sharding(model: nn.Module) -> None:
    """Make a sharded model an ordinary one again, with whole weights on each rank beside its
    share; all call it.
    """
    _forget_fsdp(model)
    for part in _parts(model):
        part.unshard()
        part.__class__ = type(part).__bases__[1]  # of FSDPModule and its own


@contextmanager
def _without_fsdp(model: nn.Module) -> Iterator[None]:
    kept = _forget_fsdp(model)
    yield
    for hooks, before in kept:
        hooks.clear()
        hooks.update(before)


def _forget_fsdp(model: nn.Module) -> list[tuple[dict[int, Any], dict[int, Any]]]:
    """Remove FSDP's hooks from a model; return torch's dicts of hooks, each with what it held."""
    kept = []
    names = (
        "_forward_pre_hooks",
        "_forward_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
    )
    for hooks in (vars(module)[name] for module in model.modules() for name in names):
        kept.append((hooks, dict(hooks)))
        for key, hook in kept[-1][1].items():
            if "_fully_shard" in str(getattr(getattr(hook, "hook", hook), "__module__", None)):
                del hooks[key]
    return kept


def _parts(model: nn.Module) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def clip_grad_norm(parameters: Sequence[Tensor], most: float) -> Tensor:
    """Scale gradients to a norm of at most `most`, return that before: torch's
    `clip_grad_norm_`, also over parts.
    """
    # parts (DTensor's operators take a collective each) and gradients in bfloat16 (whose norm would
    # be) are summed here
    is_part = any(isinstance(weight, DTensor) for weight in parameters)
    parts = [local(weight.grad) for weight in parameters if weight.grad is not None]
    if not is_part and all(part.dtype == torch.float32 for part in parts):
        return nn.utils.clip_grad_norm_(parameters, most)
    norm: Tensor = torch.linalg.vector_norm(
        torch.stack(torch._foreach_norm(parts, dtype=torch.float32))
    )
    if is_part:
        square = norm.square()
        dist.all_reduce(square)
        norm = square.sqrt()
    torch._foreach_mul_(parts, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def sharded(part: Tensor, shape: Sequence[int], stride: Sequence[int]) -> DTensor:
    """Return the sharded tensor of a shape of which this rank has this part."""
    device = getattr(
        dist.group.WORLD, "bound_device_id", None
    )  # a checkpoint's tensors are on the CPU
    mesh = mesh_of("cpu" if device is None else device.type)
    return DTensor.from_local(
        part, mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=tuple(stride)
    )
