"""Checkpoints of a training: saved at the end of a window, from which a later start goes on to the
same bits.

A checkpoint is the folder RUN/checkpoints/STEP, with a safetensors file of what all ranks share and
one of each rank's own. What is no tensor lies as JSON in the last one; nothing is unpickled. It is
written beside, synced and renamed. Each file names the checkpoint that it is a part of, by a random
number, and the points of before are known by their digest: a folder whose files don't belong
together isn't used.
"""

import json
import os
import random
import secrets
import signal
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor

from hpml_bench.plugins.group import Group
from hpml_bench.plugins.probe import Step
from hpml_bench.records.files import CHECKPOINTS, NOT_SAVED, POINTS
from hpml_bench.records.points import PointWriter, Written
from hpml_bench.records.run import Segment
from hpml_bench.system import environment, heartbeat
from hpml_bench.system.files import mostly_holes, open_plain, remove, sync_folder
from hpml_bench.system.text import digest, utc_now
from hpml_bench.training import distributed
from hpml_bench.training.request import RunRequest
from hpml_bench.training.saving import NAMES, safetensors_head

# most of the time that saving may take: the minutes between two checkpoints grow until it does
SHARE = 0.01
SHARED, OWN = "shared.safetensors", "rank{}.safetensors"
WHOLE = 0x2144DF1C  # CRC-32 of whatever has its own CRC-32 behind it
ASKED = threading.Event()  # set once this rank was asked to save and to end
HEAD_BYTES = 8  # at a file's beginning: the length of its header, in little-endian order
MOST_HEAD = 100_000_000  # bytes of a header, as safetensors has it
LONGEST_STEP = 18  # digits of a step, which a tensor of int64 holds
ID_BITS = 62  # of a checkpoint's random number, which a tensor of int64 holds
FAILURES = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RecursionError,
    SafetensorError,
)


class CheckpointError(ValueError):
    """A checkpoint that isn't used; its message is a clause that says why."""


class Ended(BaseException):
    """The end of a rank that was asked to save and to end."""


def heed_requests() -> None:
    """Save at the end of the next window, and then end, once the parent sends the signal for it."""
    signal.signal(heartbeat.SAVE_SIGNAL, lambda *_: ASKED.set())


T = TypeVar("T")


def write(path: Path, value: Any) -> None:
    """Write and sync a tree of dicts, lists, tuples, JSON's scalars and tensors; TypeError on
    anything else.
    """
    tensors: list[torch.Tensor] = []
    text = json.dumps(_packed(value, tensors))
    tensors.append(
        torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    )  # a header can't be as long
    numbered = ((str(number), tensor) for number, tensor in enumerate(tensors))
    ordered = sorted(numbered, key=lambda pair: -pair[1].element_size())  # so that all lie aligned
    head, _ = safetensors_head([*ordered, ("crc", torch.empty(4, dtype=torch.uint8))])
    crc = zlib.crc32(head)
    with path.open("wb") as file:
        file.write(head)
        for _, tensor in ordered:
            data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            crc = zlib.crc32(data, crc)
            file.write(data)
        file.write(crc.to_bytes(4, "little"))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Any:
    """Return what `write` wrote; one of `FAILURES` on a damaged file."""
    with open_plain(path) as whole:
        # first, since a file with holes may be of any size and take no room
        if os.fstat(whole.fileno()).st_size != _size_by_head(whole):
            raise CheckpointError(
                f"{path.name} is damaged: it is cut, or longer than its head says"
            )
        if mostly_holes(whole):
            raise CheckpointError(f"{path.name} is damaged: most of it is holes")
        whole.seek(0)
        crc = reduce(
            lambda so_far, part: zlib.crc32(part, so_far),
            iter(partial(whole.read, 1 << 20), b""),
            0,
        )
    if crc != WHOLE:
        raise CheckpointError(f"{path.name} is damaged")
    with safe_open(path, "pt") as file:
        text = bytes(file.get_tensor(str(len(file.keys()) - 2)).numpy())
        return _unpacked(json.loads(text), lambda name: file.get_tensor(name).clone())


def _size_by_head(file: BinaryIO) -> int:
    """Return the size that a safetensors file must have by its header; -1 where it has none."""
    length = int.from_bytes(file.read(HEAD_BYTES), "little")
    if not 0 < length <= MOST_HEAD:
        return -1
    try:
        header = json.loads(file.read(length))
        ends = [int(tensor["data_offsets"][1]) for tensor in header.values()]
        return HEAD_BYTES + length + max(ends)
    except FAILURES:
        return -1


def _packed(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return a tree as JSON, each tensor by its number in the list, to which it is added."""
    if isinstance(value, DTensor):
        return {
            "shard": [_packed(distributed.local(value), tensors), [*value.shape], [*value.stride()]]
        }
    if isinstance(value, torch.Tensor):
        if value.dtype not in NAMES:
            raise TypeError(f"a tensor of {value.dtype} can't be saved")
        tensors.append(value.detach())
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, dict):
        return {"dict": [[key, _packed(part, tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        parts = [_packed(part, tensors) for part in value]
        return parts if isinstance(value, list) else {"tuple": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} can't be saved")


def _unpacked(value: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(part, tensor) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "shard":
        part, shape, stride = content
        return distributed.sharded(_unpacked(part, tensor), shape, stride)
    if kind == "tuple":
        return tuple(_unpacked(part, tensor) for part in content)
    return {key: _unpacked(part, tensor) for key, part in content}


class State(NamedTuple):
    """State of a training after a step, as trees that `write` takes."""

    shared: dict[str, Any]  # the same on all ranks; rank 0 saves it
    own: dict[str, Any]  # this rank's


def state_of(trainer: Any, steps: Sequence[Step]) -> State:
    """Return a trainer's state after these steps; TypeError where a plug-in has one that it
    doesn't give.
    """
    model, method, device = trainer.model, trainer.method, trainer.group.device
    probes = {type(probe).__name__: probe.state() for probe in trainer.probes}
    own_of_method = method.state(model.encoder)
    for name, state in {**probes, type(method).__name__: own_of_method}.items():
        if state is None:
            raise TypeError(f"{name} has a state and no hook that gives it (`state`)")
    taken = [tuple(vars(step).values()) for step in steps]
    shared = {"buffers": dict(model.named_buffers()), "method": own_of_method, "steps": taken}
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    stateful = {name: part.state_dict() for name, part in trainer.stateful.items()}
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    numpy = (name, keys.tolist(), *rest)
    generators = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": numpy}
    if device.type == "cuda":
        generators["cuda"] = torch.cuda.get_rng_state(device)
    own = {"probes": probes, "generators": generators}
    sharded = any(isinstance(weight, DTensor) for weight in weights.values())
    (own if sharded else shared).update(weights=weights, stateful=stateful)
    return State(shared, own)


def load(trainer: Any, state: State) -> list[Step]:
    """Give a trainer a state, and its probes the steps, which are returned."""
    model, device = trainer.model, trainer.group.device
    found, steps = state.shared | state.own, [Step(*step) for step in state.shared["steps"]]
    with torch.no_grad():
        for name, value in found["weights"].items():
            model.get_parameter(name).copy_(value)
        for name, value in found["buffers"].items():
            model.get_buffer(name).copy_(value)
    trainer.method.load(model.encoder, found["method"])
    for name, part in trainer.stateful.items():
        part.load_state_dict(found["stateful"][name])
    for probe in trainer.probes:
        probe.after_steps(steps)
        probe.load(found["probes"][type(probe).__name__], len(steps))
    generators = found["generators"]  # last, so that nothing draws from them in between
    torch.set_rng_state(generators["torch"])
    random.setstate(generators["python"])
    np.random.set_state(generators["numpy"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(generators["cuda"], device)
    return steps


def _is_step(name: str) -> bool:
    """Return whether a folder's name is that of a step."""
    return name.isascii() and name.isdecimal() and len(name) <= LONGEST_STEP


def _segments_of(state: State) -> tuple[Segment, ...]:
    """Return the parts of the run up to a state; CheckpointError where they can't be read."""
    try:
        return tuple(Segment.model_validate(segment) for segment in state.shared["segments"])
    except FAILURES:
        raise CheckpointError("it doesn't tell the parts of the run before it") from None


class PartOf(NamedTuple):
    """The checkpoint that a file is a part of; equal in all its files."""

    checkpoint: int  # random, so that no two have the same
    step: int
    run: str
    world: int  # number of ranks


class Checkpoints:
    """Checkpoints of a run as one rank sees them; all ranks make the same calls."""

    def __init__(
        self,
        request: RunRequest,
        group: Group,
        hosts: Sequence[str],
        began: float,
        points: PointWriter | None,
    ) -> None:
        """`began`: time.monotonic() at which this rank's work began; `points`: rank 0's."""
        self._request, self._group, self._points = request, group, points
        self._folder = request.folder / CHECKPOINTS
        self._began, self._started, self._hosts = began, utc_now(), tuple(hosts)
        self._seconds = 60 * request.limits.checkpoint_minutes
        self._tried, self._tried_at = 0, time.monotonic()
        self._earlier: tuple[Segment, ...] = ()
        self._repeated: list[float] = []
        self.begun = 0  # step after which this start goes on
        self.unused: tuple[str, ...] = ()
        """Why checkpoints of earlier starts weren't used, a clause each."""
        self._failure = ""  # why this rank's part of what all ranks did last has failed

    @cached_property
    def _key(self) -> str:
        """Facts that must be equal here and where a checkpoint was saved."""
        here, request = environment.describe(), self._request
        same = [
            here.get(name) for name in ("fingerprint", "packages", "python", "driver", "libraries")
        ]
        asked = [request.spec.model_dump(mode="json"), request.prepared.digests.model_dump()]
        return digest([*same, *asked, self._group.world])

    def segments(self, steps: Sequence[Step]) -> tuple[Segment, ...]:
        """Return the parts of the run so far, whose steps are given."""
        own = Segment(
            hosts=self._hosts,
            started=self._started,
            first=self.begun + 1,
            last=len(steps),
            seconds=time.monotonic() - self._began,
            warmup_seconds=sum(step.seconds for step in steps[self.begun :] if step.again),
            repeated_steps=len(self._repeated),
            repeated_seconds=sum(self._repeated),
        )
        return (*self._earlier, own)

    def newest(self) -> State | None:
        """Return the newest state here that all ranks can read, None to begin anew; rank 0 cuts
        off points behind.
        """
        steps = list[int]()
        if self._points and self._request.limits.checkpoints:
            steps = self._saved_steps()
        while step := int(self._group.gather(torch.tensor([steps.pop() if steps else 0]))[0]):
            state = self._all(partial(self._read, step))
            if state is not None:
                self._go_on(step, state)
                return state
            self.unused = (*self.unused, self._first_failure())
            if self._points:  # else it would count as the run's progress
                remove(self._folder / str(step))
        if self._points:
            if self.unused:
                print("no checkpoint can be used: the run starts anew")
            remove(self._folder)
            self._points.cut(0)
        return None

    def _first_failure(self) -> str:
        """Return why the first rank that failed did; rank 0 prints it too, for those who follow its
        log alone.
        """
        failures = distributed.gathered(self._group, self._failure)
        rank, failure = next(item for item in enumerate(failures) if item[1])
        if self._points and rank > 0:
            print(f"{NOT_SAVED}rank {rank}: {failure}")
        return failure

    def _saved_steps(self) -> list[int]:
        """Return the steps after which a state lies here, in their order."""
        names = [path.name for path in self._folder.glob("*/")]
        return sorted(int(name) for name in names if _is_step(name))

    def _go_on(self, step: int, state: State) -> None:
        self.begun = self._tried = step
        self._earlier = _segments_of(state)
        if self._points:
            lost = self._points.cut(Written(*state.shared["points"]).size)
            self._repeated = [
                point.value or 0.0 for point in lost if point.metric == "step_seconds"
            ]
            print(f"going on after step {step}; {len(self._repeated)} steps are done again")

    def _read(self, step: int) -> State:
        """Return the state after a step; one of `FAILURES` where its files can't be read, or
        don't belong together.
        """
        folder = self._folder / str(step)
        try:
            shared = read(folder / SHARED)
            own = read(folder / OWN.format(self._group.rank))
            why = self._why_not(step, shared, own)
            if not why:
                _segments_of(State(shared, own))
        except CheckpointError as error:
            raise CheckpointError(f"{CHECKPOINTS}/{step} is not used: {error}") from None
        if why:
            raise CheckpointError(f"{CHECKPOINTS}/{step} is not used: {why}")
        return State(shared, own)

    def _why_not(self, step: int, shared: dict[str, Any], own: dict[str, Any]) -> str:
        """Return why a checkpoint's files aren't one state of this run, as a clause; empty where
        they are.
        """
        if not ("part_of" in shared and "part_of" in own):
            return "another version of hpml-bench saved it"
        part, other = PartOf(**own["part_of"]), PartOf(**shared["part_of"])
        if why := self._of_another_run(part, own) or self._mixed(step, own["rank"], part, other):
            return why
        if self._points and not self._points.begins_with(Written(*shared["points"])):
            return f"{POINTS} doesn't begin with the points that were written before it"
        return ""

    def _of_another_run(self, part: PartOf, own: dict[str, Any]) -> str:
        if part.run != self._request.spec.run_id:
            return f"it is of the run {part.run}"
        if part.world != self._group.world:
            return f"it was saved by {part.world} ranks, and there are {self._group.world}"
        if own["key"] != self._key:
            return "it was saved on other hardware, with other versions or of other data"
        return ""

    def _mixed(self, step: int, rank: int, part: PartOf, other: PartOf) -> str:
        rank_file = OWN.format(self._group.rank)
        if rank != self._group.rank:
            return f"{rank_file} is of rank {rank}"
        for name, named in ((rank_file, part), (SHARED, other)):
            if named.step != step:
                return f"{name} is of step {named.step}"
        if part != other:
            return f"{rank_file} and {SHARED} are of two checkpoints"
        return ""

    def end_window(self, steps: Sequence[Step], state: Callable[[Sequence[Step]], State]) -> None:
        """Save the state after a window, the last of these steps, if it is time; raises Ended if
        a rank is to end.
        """
        limits, step = self._request.limits, len(steps)
        if not limits.checkpoints:
            return
        due = time.monotonic() - self._tried_at >= self._seconds
        if limits.checkpoint_steps is not None:
            due = step - self._tried >= limits.checkpoint_steps
        due, asked = self._group.gather(torch.tensor([due, ASKED.is_set()])).any(dim=0).tolist()
        if not (due or asked):
            return
        began, fresh = time.monotonic(), self._folder / f"{step}.new"
        part_of = self._new(step)
        heartbeat.beat(f"saving the state after step {step}")
        with heartbeat.busy():
            written = self._all(lambda: self._write(fresh, part_of, state(steps), steps))
            if written and self._all(lambda: self._commit(fresh, step)):
                print(f"the state after step {step} was saved in {time.monotonic() - began:.2f} s")
            elif self._points:
                with suppress(OSError):  # the disk may be full
                    remove(fresh)
        self._tried, self._tried_at = step, time.monotonic()
        self._seconds = max(self._seconds, (self._tried_at - began) / SHARE)
        if asked:
            raise Ended

    def _new(self, step: int) -> PartOf:
        """Return what the files of a new checkpoint are a part of, equal on all ranks."""
        # of the operating system's generator: those of the training keep their states
        number = self._group.gather(torch.tensor([secrets.randbits(ID_BITS)]))[0]
        return PartOf(int(number), step, self._request.spec.run_id, self._group.world)

    def _write(self, folder: Path, part_of: PartOf, state: State, steps: Sequence[Step]) -> bool:
        folder.mkdir(parents=True, exist_ok=True)
        named = {"part_of": part_of._asdict()}
        own = {"key": self._key, "rank": self._group.rank}
        write(folder / OWN.format(self._group.rank), state.own | named | own)
        if self._points:
            segments = [segment.model_dump(mode="json") for segment in self.segments(steps)]
            written = {"points": list(self._points.sync()), "segments": segments}
            write(folder / SHARED, state.shared | named | written)
        return True

    def _commit(self, fresh: Path, step: int) -> bool:
        """Give a checkpoint its name, and remove all but the newest."""
        if self._points:
            sync_folder(fresh)
            remove(self._folder / str(step))
            fresh.rename(self._folder / str(step))
            sync_folder(self._folder)
            newest = [str(step) for step in self._saved_steps()[-2:]]
            for path in [*self._folder.glob("*/")]:
                if path.name not in newest:
                    remove(path)
        return True

    def _all(self, work: Callable[[], T]) -> T | None:
        """Return the result of this rank's part, None where it fails on any rank; each that
        fails prints why.
        """
        result: T | None = None
        self._failure = ""
        try:
            result = work()
        except CheckpointError as error:
            self._failure = str(error)
        except FAILURES as error:
            self._failure = f"{type(error).__name__}: {error}"
        if self._failure:
            print(f"{NOT_SAVED}{self._failure}")
        return result if self._group.gather(torch.tensor([result is not None])).all() else None
