"""TorchScript archives (`torch.jit.save`): parameters and buffers of the module, by name, and nothing of it is run.

An archive is a zip: `data.pkl` is a pickle of the module's attributes and of theirs, `data/` has the storages of the
tensors, `code/` the classes as text. `torch.jit.load` would compile that text; here only the lines of a class that name
its parameters and buffers are looked at. The pickle is no program either: the few opcodes that TorchScript writes are
read into plain data by `_Reader`, which has nothing to import and nothing to call. So an object of the archive is a
holder of attributes, whatever its class is called.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import WeightsCorrupt
from worker.encoders.containers.pickles import UNREADABLE, refusal

if TYPE_CHECKING:
    from torch import Tensor

OWN = "__torch__."
"""Before the name of every class of an archive."""
REBUILD = "torch._utils._rebuild_tensor_v2"
TYPED = "torch.jit._pickle."
"""Before functions that say of what a list or dict is: it is their first argument."""
DTYPES = {
    "torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}  # fmt: skip
SPOKEN = frozenset({REBUILD, "builtins.complex", "collections.OrderedDict", "torch.device", *DTYPES})
"""Names, besides those of classes of the archive and of `TYPED`, that an archive is understood to say."""
CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = (\[.*\])\n(?:  __buffers__ = (\[.*\])\n)?", re.MULTILINE
)
QUOTED = re.compile(r'"([^"\\]+)"')

MOST_TEXT = 8 << 20
"""Bytes of one pickle or file of classes; those of a hundred modules are some tens of thousands."""
MOST_NAMED = 4 << 20
"""Characters of all names together, so that modules which lie in each other come to an end."""
NAME_COSTS = 16
"""Characters that a name counts for besides its own."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A class or function, which stays a name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where numbers lie: entry below `data/`, class of the storage, how many."""

    entry: str
    of: str
    count: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: a view of what is stored, in elements."""

    stored: _Stored
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Held:
    """An object of a class of the archive."""

    of: str
    attributes: dict[Any, Any] = field(default_factory=dict)


def is_torchscript(path: Path) -> bool:
    """Whether it is a zip with the two pickles of TorchScript; False for what is no zip, or none that can be opened."""
    try:
        with zipfile.ZipFile(path) as file:
            return bool(_root(file))
    except UNREADABLE:
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name (`a.b.c`), on the CPU, of the type that they are stored in.

    Raises:
        WeightsCorrupt: cut off, damaged, no module, or it asks for something that could be run.
    """
    try:
        with zipfile.ZipFile(path) as file:
            archive = _Archive(file, path.name)
            return {name: archive.tensor(view) for name, view in archive.named()}
    except UNREADABLE as error:
        raise WeightsCorrupt(
            f"{path.name} cannot be read as weights: it is cut off, damaged, or no module of TorchScript."
        ) from error


def _root(file: zipfile.ZipFile) -> str:
    """The one folder at the top of an archive, with its slash; empty if it is none of TorchScript."""
    names = set(file.namelist())
    roots = [name.removesuffix("constants.pkl") for name in names if name.count("/") == 1]
    return next((root for root in roots if {root + "constants.pkl", root + "data.pkl"} <= names), "")


# The pickle -----------------------------------------------------------------------------------------------------------

MARK = object()
MADE: dict[str, Callable[[], Any]] = {
    "MARK": lambda: MARK, "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip
GIVEN = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"})


class _Reader:
    """The stack of a pickle, for the opcodes that TorchScript writes (`torch/csrc/jit/serialization/pickler.cpp`)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[Any] = []
        self._memo: dict[Any, Any] = {}

    def read(self, pickled: bytes) -> Any:
        """What was pickled, as plain data."""
        for opcode, argument, _ in pickletools.genops(pickled):
            self._step(opcode.name, argument)
        (whole,) = self._stack
        return whole

    def _step(self, opcode: str, argument: Any) -> None:
        if opcode in GIVEN:
            self._stack.append(argument)
        elif opcode in MADE:
            self._stack.append(MADE[opcode]())
        elif opcode in {"BINPUT", "LONG_BINPUT"}:
            self._memo[argument] = self._stack[-1]
        elif opcode in {"BINGET", "LONG_BINGET"}:
            self._stack.append(self._memo[argument])
        elif opcode not in {"PROTO", "STOP"}:
            self._join(opcode, argument)

    def _join(self, opcode: str, argument: Any) -> None:
        """What takes several from the top of the stack and makes one of them."""
        match opcode:
            case "TUPLE":
                self._stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(self._popped(int(opcode[-1]))))
            case "APPEND" | "APPENDS":
                items = self._marked() if opcode == "APPENDS" else self._popped(1)
                self._stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._marked() if opcode == "SETITEMS" else self._popped(2)
                self._stack[-1].update(_entries(items))
            case _:
                self._make(opcode, argument)

    def _make(self, opcode: str, argument: Any) -> None:
        """What would import and call, were this a machine for pickles."""
        match opcode:
            case "GLOBAL":
                self._stack.append(self._spoken(str(argument).replace(" ", ".", 1)))
            case "NEWOBJ":
                self._stack.append(_object(*self._popped(2)))
            case "BUILD":
                (state,) = self._popped(1)
                _told(self._stack[-1], state)
            case "REDUCE":
                self._stack.append(_called(*self._popped(2)))
            case "BINPERSID":
                self._stack.append(_stored(*self._stack.pop()))
            case _:
                raise WeightsCorrupt(refusal(self._name, [f"the opcode {opcode}"]))

    def _spoken(self, name: str) -> _Named:
        if name not in SPOKEN and not name.startswith((OWN, TYPED)):
            raise WeightsCorrupt(refusal(self._name, [name]))
        return _Named(name)

    def _popped(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _marked(self) -> list[Any]:
        """All since the last mark, which goes too."""
        items = []
        while (item := self._stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]


def _entries(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values by turns. A key is a plain one: to hash tuples in tuples in tuples would overrun the stack."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int | float):
            raise TypeError("no plain key")
        yield key, value


def _object(of: _Named, _: Any) -> _Held:
    if not of.name.startswith(OWN):
        raise ValueError("no class of the archive")
    return _Held(of.name)


def _told(held: _Held, state: Any) -> None:
    """Attributes; a class with a `__getstate__` of its own, which no module of a network has, keeps none."""
    if not isinstance(held, _Held):
        raise TypeError("nothing with attributes")
    held.attributes = state if isinstance(state, dict) else {}


def _called(of: _Named, arguments: tuple[Any, ...]) -> Any:
    """What the few functions of an archive would give; the rest are members of enumerations, devices and hooks."""
    if of.name == REBUILD:
        stored, offset, size, stride, *_ = arguments
        return _View(stored, _natural(offset), tuple(map(_natural, size)), tuple(map(_natural, stride)))
    return arguments[0] if of.name.startswith(TYPED) else None


def _stored(kind: str, of: _Named, entry: str, _: str, count: int) -> _Stored:
    if kind != "storage" or of.name not in DTYPES or not isinstance(entry, str):
        raise ValueError("no storage")
    return _Stored(entry, of.name, _natural(count))


def _natural(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no size")
    return value


# The archive ----------------------------------------------------------------------------------------------------------


def _members(held: _Held, tensors: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for key, value in held.attributes.items():
        if isinstance(value, _Held) or (value is not None and key in tensors):
            yield key, value


class _Archive:
    """An open archive: the module, the lines of its classes, its numbers."""

    def __init__(self, file: zipfile.ZipFile, name: str) -> None:
        self._file, self._name, self._root = file, name, _root(file)
        self._storages: dict[_Stored, Tensor] = {}
        self._classes: dict[str, dict[str, frozenset[str]]] = {}
        self._members: dict[_Held, list[tuple[str, Any]]] = {}
        if f"{self._root}byteorder" in file.namelist() and self._text("byteorder") != b"little":
            raise ValueError("numbers the other way round")

    def named(self) -> Iterator[tuple[str, _View]]:
        """Every parameter and buffer with its name; one that is shared has several, as it has for torch."""
        waiting: list[tuple[str, _Held]] = [("", _Reader(self._name).read(self._text("data.pkl")))]
        left = MOST_NAMED
        while waiting:
            prefix, held = waiting.pop()
            for key, value in self._of(held):
                left -= len(prefix) + len(key) + NAME_COSTS
                if left < 0:
                    raise ValueError("modules that lie in each other")
                if isinstance(value, _Held):
                    waiting.append((f"{prefix}{key}.", value))
                else:
                    yield f"{prefix}{key}", value

    def tensor(self, view: _View) -> Tensor:
        """The tensor, which shares its storage with its other views; torch sees to it that it stays inside."""
        import torch

        if view.stored not in self._storages:
            self._storages[view.stored] = self._numbers(view.stored)
        return torch.as_strided(self._storages[view.stored], view.size, view.stride, view.offset)

    def _numbers(self, stored: _Stored) -> Tensor:
        """All that is stored in one entry, uncompressed, so that no small file unfolds into a large one."""
        import torch

        dtype = getattr(torch, DTYPES[stored.of])
        entry = self._file.getinfo(f"{self._root}data/{stored.entry}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != stored.count * dtype.itemsize:
            raise ValueError("a storage of another size")
        numbers = bytearray(self._file.read(entry))
        return torch.frombuffer(numbers, dtype=dtype) if stored.count else torch.empty(0, dtype=dtype)

    def _of(self, held: _Held) -> list[tuple[str, Any]]:
        """Parameters, buffers and modules of a module; none of an object that is no module."""
        if held not in self._members:
            tensors = self._tensors_of(held.of)
            self._members[held] = [] if tensors is None else list(_members(held, tensors))
        return self._members[held]

    def _tensors_of(self, name: str) -> frozenset[str] | None:
        """Names of the parameters and buffers of a class of modules; None for another class."""
        module, _, last = name.rpartition(".")
        if module not in self._classes:
            classes = CLASS.findall(self._text(f"code/{module.replace('.', '/')}.py").decode())
            self._classes[module] = {of: frozenset(QUOTED.findall(f"{own}{kept}")) for of, own, kept in classes}
        return self._classes[module].get(last)

    def _text(self, name: str) -> bytes:
        entry = self._file.getinfo(self._root + name)
        if entry.file_size > MOST_TEXT or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError("text without end, or packed in another way")
        return self._file.read(entry)
