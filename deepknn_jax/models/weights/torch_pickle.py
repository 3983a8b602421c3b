"""What a pickle of torch.save describes, found without running it.

A pickle is a program that may call any function. Here its opcodes drive a small machine that knows
containers, numbers, strings and a few names, each of which only describes a tensor; it looks
nothing up and calls nothing. What it does not know is an error.
"""

import math
import pickletools
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from deepknn_jax.errors import UserError


class _Name(NamedTuple):
    """A function or class that the pickle asks for; nothing but its name."""

    text: str


class Storage(NamedTuple):
    """`length` numbers from `first` on, of the `total` stored under `key`."""

    key: str
    dtype: np.dtype
    total: int
    first: int
    length: int


class Tensor(NamedTuple):
    """Where a tensor lies in its storage, in numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


_NUMBERS = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
_STORAGES = {
    f"{module}.{name}Storage": np.dtype(number)
    for module in ("torch", "torch.cuda")
    for name, number in _NUMBERS.items()
}
_ADMITTED = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",  # before torch 0.4
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *_STORAGES,
}

# Opcodes that push what follows them, or a constant; and how many values others take.
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TAKE = {
    "TUPLE1": 1,
    "TUPLE2": 2,
    "TUPLE3": 3,
    "APPEND": 1,
    "SETITEM": 2,
    "STACK_GLOBAL": 2,
    "REDUCE": 2,
    "BUILD": 1,
    "BINPERSID": 1,
}
_TAKE_TO_MARK = ("TUPLE", "APPENDS", "SETITEMS")


def read_pickle(stream: Any, storages: dict[str, Storage] | None = None) -> Any:
    """What the pickle at the stream's position describes; the position is then behind it.

    Storages that it refers to are added to `storages`; None: it must refer to none.

    Raises:
        UserError: it asks for what no file of weights needs. And whatever a damaged one leads to.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    opcodes: Iterator[tuple[Any, Any, Any]] = pickletools.genops(stream)
    for opcode, argument, _ in opcodes:
        name = opcode.name
        count = len(stack) - marks.pop() if name in _TAKE_TO_MARK else _TAKE.get(name, 0)
        taken = [stack.pop() for _ in range(count)][::-1]
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if name in _LITERALS:
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(taken))
            case "APPEND" | "APPENDS":
                stack[-1].extend(taken)
            case "SETITEM" | "SETITEMS":
                _set_items(stack[-1], taken[::2], taken[1::2])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_admitted(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                stack.append(_admitted(".".join(taken)))
            case "REDUCE":
                stack.append(_described(*taken))
            case "BINPERSID":
                stack.append(_storage(taken[0], storages))
            case "BUILD" if isinstance(stack[-1], dict):
                pass  # attributes of a state_dict, such as its _metadata
            case _:
                raise UserError(f"has a pickle's {name}, which no state_dict needs: not read")
    return stack.pop()


def _set_items(target: Any, keys: list[Any], values: list[Any]) -> None:
    # Only these: the hash of deeply nested tuples would overflow the interpreter's stack.
    if not isinstance(target, dict) or not all(isinstance(key, str | int) for key in keys):
        raise UserError("has a dict with keys other than names and numbers: no state_dict")
    target.update(zip(keys, values, strict=True))


def _admitted(name: str) -> _Name:
    if name not in _ADMITTED:
        raise UserError(
            f"asks for {shown(name)}, which is not part of a tensor, and so is not read: "
            "give a file that holds a state_dict alone, as torch.save(model.state_dict(), ...) does"
        )
    return _Name(name)


def _described(function: Any, arguments: Any) -> dict[Any, Any] | Tensor:
    """What the admitted `function` would make of its arguments."""
    match getattr(function, "text", None), arguments:
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", (list(pairs),):  # Python 2's form
            items: dict[Any, Any] = {}
            _set_items(items, [key for key, _ in pairs], [value for _, value in pairs])
            pairs.clear()  # one list read again and again would make of a small file a large object
            return items
        case "torch._utils._rebuild_tensor", (Storage() as storage, offset, size, stride):
            return _tensor(storage, offset, size, stride)
        case "torch._utils._rebuild_tensor_v2", (Storage() as storage, offset, size, stride, _, _):
            return _tensor(storage, offset, size, stride)
        case "torch._utils._rebuild_parameter", (Tensor() as tensor, _, _):
            return tensor
    raise UserError("calls something in a way that describes no tensor: not read")


def _tensor(storage: Storage, offset: Any, size: Any, stride: Any) -> Tensor:
    """The description, checked to lie within the storage and to have no more numbers than it."""
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)):
        raise UserError("has a tensor without a proper shape")
    if len(size) > 32 or not all(_is_count(number) for number in (offset, *size, *stride)):
        raise UserError("has a tensor without a proper shape")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > storage.length or (count and last >= storage.length):
        raise UserError("has a tensor that reaches beyond its storage")
    return Tensor(storage, offset, size, stride)


def _storage(reference: Any, storages: dict[str, Storage] | None) -> Storage:
    """The storage of a persistent id: ("storage", type, key, device, length[, None or view])."""
    match reference:
        case ("storage", _Name(text=name), str(key), _, total, *view) if (
            storages is not None and name in _STORAGES and _is_count(total)
        ):
            root = Storage(key, _STORAGES[name], total, 0, total)
            if storages.setdefault(key, root) != root:
                raise UserError("has one storage under two types or lengths")
            match view:
                case [] | [None]:
                    return root
                case [(_, first, length)] if _is_count(first) and _is_count(length):
                    if first + length > total:
                        raise UserError("has a view that reaches beyond its storage")
                    return root._replace(first=first, length=length)
    raise UserError("refers to something that is no storage of a tensor: not read")


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number < 2**63


def shown(text: Any) -> str:
    """Foreign text, fit for one line."""
    return ascii(str(text)[:120])[1:-1]
