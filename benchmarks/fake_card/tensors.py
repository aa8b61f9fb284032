"""Tensors of a card that isn't there, and torch's rules on the devices that an operator's arguments
may have.

Each has the keys of a CUDA tensor, so that autocast, autograd and every `device.type` see one, and
holds a CPU tensor, on which each operator is computed. Values are therefore real, unlike those of
torch's FakeTensor, which has none.
"""

import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
OPS = torch.ops.aten
COPIES = (OPS.copy_, OPS._to_copy)
INDEXING = (OPS.index, OPS.index_put, OPS.index_put_, OPS._unsafe_index, OPS._index_put_impl_)
"""Operators whose indices may be on the CPU; they are copied then."""
TAKE_SCALARS = (*COPIES, *INDEXING, OPS.fill_, OPS.masked_fill, OPS.masked_fill_)
"""Operators that take a tensor without dimensions from the CPU, beside those that compute
element by element.
"""
WAIT = (
    OPS._local_scalar_dense,
    OPS.nonzero,
    OPS.masked_select,
    OPS.equal,
    OPS._unique2,
    OPS.unique_dim,
    OPS.unique_consecutive,
    OPS.bincount,
)
"""Operators that wait for the device, since a value or a shape depends on what it computes."""
AT_ONCE = {OPS._conj.default: OPS._conj_physical.default, OPS._neg_view.default: OPS.neg.default}
"""Operators that only mark what they return, which an operator within a mode of dispatch doesn't
see -> those that compute it.
"""
NO_KERNEL = (
    "empty",
    "new_empty",
    "_unsafe_view",
    "_reshape_alias",
    "lift_fresh",
    "is_",
    "sym_",
    "_has_",
)
"""Beginnings of the names of operators that launch no kernel, beside views."""
LIBRARIES = (
    "/hpml_bench/",
    "/transformers/",
    "/peft/",
    "/bitsandbytes/",
    "/torch/optim/",
    "/torch/amp/",
)


class WrongDeviceError(RuntimeError):
    """An operator got tensors that torch would not compute with on a machine with a card."""


class CardTensor(torch.Tensor):
    """A tensor that says it is on cuda:0, over the CPU tensor `held`."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "CardTensor":
        kind: dict[str, Any] = {"dtype": held.dtype, "layout": held.layout, "device": CUDA}
        places: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), **places, **kind)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        operator: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute outside a `Card`, as in one."""
        return compute(operator, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"on the card: {self.held!r}"

    @property
    def data(self) -> Tensor:
        """The same values outside the graph."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, CardTensor):
            raise WrongDeviceError(
                "a tensor on the card gets data on the CPU: they must be on the same device"
            )
        torch._C.TensorBase.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(with_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(with_tensors(index), value)

    def tolist(self) -> Any:
        """Return the values; waits for the device, as torch's does."""
        return self.cpu().tolist()


def with_tensors(index: Any) -> Any:
    """Return an index whose lists are tensors, copied to the card as torch does, which would ask
    the driver first.
    """
    if isinstance(index, tuple):
        return tuple(map(with_tensors, index))
    return torch.tensor(list(index)).to(CUDA) if isinstance(index, list | range) else index


class Card(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode in which `device="cuda"` makes tensors of the card.

    `waits` has the places that waited for the device, `kernels` the operators that launch one, by
    name.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        operator: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute an operator on any tensors."""
        if waits(operator, args, kwargs or {}):
            self.waits.append(place())
        views = any(
            made.alias_info and not made.alias_info.is_write for made in operator._schema.returns
        )
        name = operator.overloadpacket.__name__
        if not views and not name.startswith(NO_KERNEL) and operator.namespace == "aten":
            self.kernels[name] += 1
        return compute(operator, args, kwargs or {})


def compute(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Check the devices of an operator's arguments, compute on what they hold, and return
    tensors of its device.
    """
    given = tree_leaves((*args, *kwargs.values()))
    tensors = [leaf for leaf in given if isinstance(leaf, Tensor)]
    beside = any(isinstance(leaf, CardTensor) for leaf in tensors)
    on_card = torch.device(kwargs.get("device") or (CUDA if beside else CPU)).type == "cuda"
    if not on_card and not beside:
        return operator(*args, **kwargs)
    if on_card and any(isinstance(leaf, torch.Generator) for leaf in given):
        raise WrongDeviceError(
            f"{operator} got a generator of the CPU, which is not the same device as cuda:0"
        )
    check_devices(operator, args, tensors)
    inner, named = tree_map(held, tuple(args)), tree_map(held, dict(kwargs))
    if on_card and "device" in named:
        named["device"] = CPU
    if operator.overloadpacket is OPS._to_copy:
        named["non_blocking"] = False  # on the CPU it would be torch's to wait
    own = {id(held(leaf)): leaf for leaf in tensors}

    def placed(leaf: Any) -> Any:
        changed = own.get(id(leaf))
        if changed is None:
            return CardTensor(leaf) if on_card and isinstance(leaf, Tensor) else leaf
        if (
            isinstance(changed, CardTensor) and changed.shape != changed.held.shape
        ):  # which is kept twice
            raise NotImplementedError("a tensor on the card was given another shape in place")
        return changed

    return tree_map(placed, AT_ONCE.get(operator, operator)(*inner, **named))


def held(leaf: Any) -> Any:
    """Return what a tensor on the card holds; anything else as it is."""
    return leaf.held if isinstance(leaf, CardTensor) else leaf


def check_devices(operator: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Refuse tensors on the CPU beside those on the card, but for what torch takes: a
    WrongDeviceError names them.
    """
    packet = operator.overloadpacket
    written = (
        args[0] if args and operator._schema.is_mutable and isinstance(args[0], Tensor) else None
    )
    if len({isinstance(each, CardTensor) for each in tensors}) < 2 or packet is OPS.copy_:
        return
    indices = {id(leaf) for leaf in tree_leaves(args[1])} if packet in INDEXING else set()
    scalars = (
        packet in TAKE_SCALARS
        or torch.Tag.pointwise in operator.tags
        or packet.__name__.startswith("_foreach")
    )
    beside = [
        each for each in tensors if not isinstance(each, CardTensor) and id(each) not in indices
    ]
    if strange := [
        tuple(each.shape) for each in beside if each.dim() or not scalars or each is written
    ]:
        # in torch's words, by which the harness knows an error of the machine
        raise WrongDeviceError(
            f"Expected all tensors to be on the same device, but {operator} got some on cuda:0 "
            f"and, of the shapes {', '.join(map(str, strange))}, some on the CPU"
        )


def waits(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether an operator would let the host wait for the card."""
    packet = operator.overloadpacket
    if packet in COPIES:
        source = args[1] if packet is OPS.copy_ else args[0]
        target = args[0].device if packet is OPS.copy_ else kwargs.get("device") or source.device
        return torch.device(target).type != source.device.type and not kwargs.get(
            "non_blocking", False
        )
    if packet in INDEXING and isinstance(args[0], CardTensor):
        indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
        return any(leaf.dtype == torch.bool or not isinstance(leaf, CardTensor) for leaf in indices)
    return packet in WAIT and isinstance(args[0], CardTensor)


def place() -> str:
    """Return where this is called from: the innermost line of ours or of a library that
    computes.
    """
    for frame in reversed(traceback.extract_stack()):
        if any(part in frame.filename for part in LIBRARIES) and "fake_card" not in frame.filename:
            path = Path(frame.filename)
            return f"{path.parent.name}/{path.stem}:{frame.lineno}"
    return "elsewhere"
