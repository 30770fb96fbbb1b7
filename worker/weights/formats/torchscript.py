"""TorchScript archives (`torch.jit.save`): parameters and buffers of the module, by name, and nothing of it is run.

An archive is a zip: `data.pkl` is a pickle of the module's attributes and of theirs, `data/` has the storages of the
tensors, `code/` the classes as text. `torch.jit.load` would compile that text; here only the lines of a class that name
its parameters and buffers are looked at. The pickle is no program either: the few opcodes that TorchScript writes are
read into plain data by `_PickleReader`, which imports nothing and calls nothing. So an object of the archive is a
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
from worker.weights.formats.pickles import READ_ERRORS, refusal_message

if TYPE_CHECKING:
    from torch import Tensor

CLASS_PREFIX = "__torch__."
"""Before the name of every class of an archive."""
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
TYPED_PREFIX = "torch.jit._pickle."
"""Before functions that say of what a list or dict is: it is their first argument."""
STORAGE_DTYPES = {
    "torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}  # fmt: skip
KNOWN_GLOBALS = frozenset(
    {REBUILD_TENSOR, "builtins.complex", "collections.OrderedDict", "torch.device", *STORAGE_DTYPES}
)
"""Names, besides those of classes of the archive and of `TYPED_PREFIX`, that an archive is understood to say."""
CLASS_PATTERN = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = (\[.*\])\n(?:  __buffers__ = (\[.*\])\n)?", re.MULTILINE
)
QUOTED_PATTERN = re.compile(r'"([^"\\]+)"')

MAX_TEXT_BYTES = 8 << 20
"""Bytes of one pickle or file of classes; those of a hundred modules are some tens of thousands."""
MAX_NAME_CHARS = 4 << 20
"""Characters of all names together, so that modules which lie in each other come to an end."""
NAME_OVERHEAD = 16
"""Characters that a name counts for besides its own."""


@dataclass(frozen=True, slots=True)
class _GlobalName:
    """A class or function, kept as a name and never imported."""

    name: str


@dataclass(frozen=True, slots=True)
class _StorageRef:
    """A storage: its entry below `data/`, its class, its number of elements."""

    entry: str
    storage_class: str
    count: int


@dataclass(frozen=True, slots=True)
class _TensorView:
    """A tensor as a view of a storage, in elements."""

    storage: _StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _ScriptObject:
    """An object of a class of the archive."""

    class_name: str
    attributes: dict[Any, Any] = field(default_factory=dict)


def is_torchscript(path: Path) -> bool:
    """Tell whether a file is a zip with the two pickles of TorchScript; False for anything that is no readable zip."""
    try:
        with zipfile.ZipFile(path) as file:
            return bool(_find_root(file))
    except READ_ERRORS:
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read parameters and buffers by name (`a.b.c`), on the CPU, in their stored type.

    Raises:
        WeightsCorrupt: cut off, damaged, no module, or it asks for something that could be run.
    """
    try:
        with zipfile.ZipFile(path) as file:
            archive = _ScriptArchive(file, path.name)
            return {name: archive.build_tensor(view) for name, view in archive.iter_tensors()}
    except READ_ERRORS as error:
        raise WeightsCorrupt(
            f"{path.name} cannot be read as weights: it is cut off, damaged, or no module of TorchScript."
        ) from error


def _find_root(file: zipfile.ZipFile) -> str:
    """Find the one folder at the top of an archive, with its slash; empty if it is not TorchScript."""
    names = set(file.namelist())
    roots = [name.removesuffix("constants.pkl") for name in names if name.count("/") == 1]
    return next((root for root in roots if {root + "constants.pkl", root + "data.pkl"} <= names), "")


# The pickle -----------------------------------------------------------------------------------------------------------

MARK_OBJECT = object()
CONSTANT_OPCODES: dict[str, Callable[[], Any]] = {
    "MARK": lambda: MARK_OBJECT, "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip
ARGUMENT_OPCODES = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"})


class _PickleReader:
    """The stack of a pickle, for the opcodes that TorchScript writes (`torch/csrc/jit/serialization/pickler.cpp`)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[Any] = []
        self._memo: dict[Any, Any] = {}

    def read_data(self, pickled: bytes) -> Any:
        """Read the pickle into plain data."""
        for opcode, argument, _ in pickletools.genops(pickled):
            self._apply_opcode(opcode.name, argument)
        (result,) = self._stack
        return result

    def _apply_opcode(self, opcode: str, argument: Any) -> None:
        if opcode in ARGUMENT_OPCODES:
            self._stack.append(argument)
        elif opcode in CONSTANT_OPCODES:
            self._stack.append(CONSTANT_OPCODES[opcode]())
        elif opcode in {"BINPUT", "LONG_BINPUT"}:
            self._memo[argument] = self._stack[-1]
        elif opcode in {"BINGET", "LONG_BINGET"}:
            self._stack.append(self._memo[argument])
        elif opcode not in {"PROTO", "STOP"}:
            self._combine_items(opcode, argument)

    def _combine_items(self, opcode: str, argument: Any) -> None:
        """Run an opcode that combines several items of the stack into one."""
        match opcode:
            case "TUPLE":
                self._stack.append(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(self._pop_items(int(opcode[-1]))))
            case "APPEND" | "APPENDS":
                items = self._pop_to_mark() if opcode == "APPENDS" else self._pop_items(1)
                self._stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._pop_to_mark() if opcode == "SETITEMS" else self._pop_items(2)
                self._stack[-1].update(_pair_entries(items))
            case _:
                self._build_object(opcode, argument)

    def _build_object(self, opcode: str, argument: Any) -> None:
        """Run an opcode that would import and call in a real unpickler; here it builds plain data."""
        match opcode:
            case "GLOBAL":
                self._stack.append(self._resolve_global(str(argument).replace(" ", ".", 1)))
            case "NEWOBJ":
                self._stack.append(_make_object(*self._pop_items(2)))
            case "BUILD":
                (state,) = self._pop_items(1)
                _set_attributes(self._stack[-1], state)
            case "REDUCE":
                self._stack.append(_apply_function(*self._pop_items(2)))
            case "BINPERSID":
                self._stack.append(_parse_storage(*self._stack.pop()))
            case _:
                raise WeightsCorrupt(refusal_message(self._name, [f"the opcode {opcode}"]))

    def _resolve_global(self, name: str) -> _GlobalName:
        if name not in KNOWN_GLOBALS and not name.startswith((CLASS_PREFIX, TYPED_PREFIX)):
            raise WeightsCorrupt(refusal_message(self._name, [name]))
        return _GlobalName(name)

    def _pop_items(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _pop_to_mark(self) -> list[Any]:
        """Pop everything since the last mark, and the mark."""
        items = []
        while (item := self._stack.pop()) is not MARK_OBJECT:
            items.append(item)
        return items[::-1]


def _pair_entries(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values by turns. A key is a plain one: to hash tuples in tuples in tuples would overrun the stack."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int | float):
            raise TypeError("no plain key")
        yield key, value


def _make_object(global_name: _GlobalName, _: Any) -> _ScriptObject:
    if not global_name.name.startswith(CLASS_PREFIX):
        raise ValueError("no class of the archive")
    return _ScriptObject(global_name.name)


def _set_attributes(script_object: _ScriptObject, state: Any) -> None:
    """Attributes; a class with a `__getstate__` of its own, which no module of a network has, keeps none."""
    if not isinstance(script_object, _ScriptObject):
        raise TypeError("nothing with attributes")
    script_object.attributes = state if isinstance(state, dict) else {}


def _apply_function(function: _GlobalName, arguments: tuple[Any, ...]) -> Any:
    """Evaluate the few functions that archives use; the rest are members of enumerations, devices and hooks."""
    if function.name == REBUILD_TENSOR:
        storage, offset, size, stride, *_ = arguments
        return _TensorView(
            storage, _check_natural(offset), tuple(map(_check_natural, size)), tuple(map(_check_natural, stride))
        )
    return arguments[0] if function.name.startswith(TYPED_PREFIX) else None


def _parse_storage(kind: str, storage_class: _GlobalName, entry: str, _: str, count: int) -> _StorageRef:
    if kind != "storage" or storage_class.name not in STORAGE_DTYPES or not isinstance(entry, str):
        raise ValueError("no storage")
    return _StorageRef(entry, storage_class.name, _check_natural(count))


def _check_natural(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no size")
    return value


# The archive ----------------------------------------------------------------------------------------------------------


def _list_members(script_object: _ScriptObject, tensor_names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for key, value in script_object.attributes.items():
        if isinstance(value, _ScriptObject) or (value is not None and key in tensor_names):
            yield key, value


class _ScriptArchive:
    """An open archive: the module, the lines of its classes, its numbers."""

    def __init__(self, file: zipfile.ZipFile, name: str) -> None:
        self._file, self._name, self._root = file, name, _find_root(file)
        self._storages: dict[_StorageRef, Tensor] = {}
        self._classes: dict[str, dict[str, frozenset[str]]] = {}
        self._members: dict[_ScriptObject, list[tuple[str, Any]]] = {}
        if f"{self._root}byteorder" in file.namelist() and self._read_entry("byteorder") != b"little":
            raise ValueError("numbers the other way round")

    def iter_tensors(self) -> Iterator[tuple[str, _TensorView]]:
        """Yield every parameter and buffer with its name; a shared one comes once for each name, as in torch."""
        pending: list[tuple[str, _ScriptObject]] = [
            ("", _PickleReader(self._name).read_data(self._read_entry("data.pkl")))
        ]
        remaining = MAX_NAME_CHARS
        while pending:
            prefix, script_object = pending.pop()
            for key, value in self._members_of(script_object):
                remaining -= len(prefix) + len(key) + NAME_OVERHEAD
                if remaining < 0:
                    raise ValueError("modules that lie in each other")
                if isinstance(value, _ScriptObject):
                    pending.append((f"{prefix}{key}.", value))
                else:
                    yield f"{prefix}{key}", value

    def build_tensor(self, view: _TensorView) -> Tensor:
        """Build the tensor, which shares its storage with its other views; torch checks that it stays within."""
        import torch

        if view.storage not in self._storages:
            self._storages[view.storage] = self._read_storage(view.storage)
        return torch.as_strided(self._storages[view.storage], view.size, view.stride, view.offset)

    def _read_storage(self, storage: _StorageRef) -> Tensor:
        """Read one entry, which must be uncompressed: a small file cannot unfold into a large one."""
        import torch

        dtype = getattr(torch, STORAGE_DTYPES[storage.storage_class])
        entry = self._file.getinfo(f"{self._root}data/{storage.entry}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != storage.count * dtype.itemsize:
            raise ValueError("a storage of another size")
        buffer = bytearray(self._file.read(entry))
        return torch.frombuffer(buffer, dtype=dtype) if storage.count else torch.empty(0, dtype=dtype)

    def _members_of(self, script_object: _ScriptObject) -> list[tuple[str, Any]]:
        """List parameters, buffers and submodules of a module; nothing of any other object."""
        if script_object not in self._members:
            tensor_names = self._tensor_names(script_object.class_name)
            self._members[script_object] = (
                [] if tensor_names is None else list(_list_members(script_object, tensor_names))
            )
        return self._members[script_object]

    def _tensor_names(self, name: str) -> frozenset[str] | None:
        """List the names of parameters and buffers of a class of modules; None for any other class."""
        module, _, last = name.rpartition(".")
        if module not in self._classes:
            classes = CLASS_PATTERN.findall(self._read_entry(f"code/{module.replace('.', '/')}.py").decode())
            self._classes[module] = {
                class_name: frozenset(QUOTED_PATTERN.findall(f"{parameters}{buffers}"))
                for class_name, parameters, buffers in classes
            }
        return self._classes[module].get(last)

    def _read_entry(self, name: str) -> bytes:
        entry = self._file.getinfo(self._root + name)
        if entry.file_size > MAX_TEXT_BYTES or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError("text without end, or packed in another way")
        return self._file.read(entry)
