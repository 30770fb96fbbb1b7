"""Pickles of PyTorch, as a zip or a stream, read by torch's reader for weights alone (`weights_only=True`).

Settings and callbacks that Lightning puts beside the weights are classes which that reader does not know: an empty
stand-in takes the place of each. What a file could run, functions and classes of the standard library, has no stand-in
and makes it corrupt.
"""

from __future__ import annotations

import pickletools
import struct
import sys
import warnings
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

from shared.errors import WeightsCorrupt

MAX_NAMES_SHOWN = 5
"""How many names of a kind an error gives."""
PICKLES_PER_STREAM = 4
"""Magic number, version of the format, facts about the machine, and the object itself."""
MAX_TUPLE_DEPTH = 1000
"""Tuples in tuples; those of weights are three or four."""

INERT_NAMES = frozenset({
    "argparse.Namespace", "builtins.bool", "builtins.dict", "builtins.float", "builtins.getattr", "builtins.int",
    "builtins.list", "builtins.object", "builtins.str", "builtins.tuple", "collections.defaultdict",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy.dtype", "numpy.ndarray", "pathlib.Path", "pathlib.PosixPath",
    "pathlib.WindowsPath", "typing.Any",
})  # fmt: skip
"""Names in settings and scores that are no class of another package, yet nothing but data. They get a stand-in too.

That of `getattr` is as inert as the others: early releases of Python 3.11 write members of an enumeration with it."""

TORCH_KNOWN_NAMES = frozenset({
    "_codecs.encode", "builtins.bytearray", "builtins.complex", "builtins.set", "collections.Counter",
    "collections.OrderedDict",
})  # fmt: skip
"""What torch's reader for weights builds itself, outside of torch."""

READ_ERRORS = (
    UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    MemoryError, OSError, OverflowError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""How torch and pickletools fail on bytes that are no weights: anywhere, since a reader of opcodes believes them.
torch seeks where a broken table of contents points to, hence OSError."""


def shorten_names(names: list[str]) -> str:
    """Join the first few names for an error message."""
    return ", ".join(names[:MAX_NAMES_SHOWN]) + (", ..." if len(names) > MAX_NAMES_SHOWN else "")


def refusal_message(name: str, code: list[str]) -> str:
    """The error message for a file that needs code to be run."""
    return f"{name} is refused: it asks for {shorten_names(code)}, which no weights need."


class _DictStandIn:
    """Stands in for a class that is not weights. It is a dict, so it takes entries and attributes."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


class _InertStandIn:
    """Stands in for numpy's scalars and types, whose state is a tuple."""

    def __init__(self, *_: object) -> None:
        """Accept any arguments."""

    def __setstate__(self, _: object) -> None:
        """Accept any state."""


def read_pickle(path: Path) -> object:
    """Read a pickle, on the CPU; WeightsCorrupt when it is cut off, no pickle, or needs code to be run."""
    try:
        try:
            for pickled in _iter_pickles(path):
                _refuse_depth(pickled)
            return _load_pickle(path, [])
        except UnpicklingError:
            names = {name for pickled in _iter_pickles(path) for name in _iter_globals(pickled)}
            stand_in_names = sorted(name for name in names if _is_inert(name))
            _refuse_code(path, names)
            return _load_pickle(path, stand_in_names)
    except READ_ERRORS as error:
        raise WeightsCorrupt(
            f"{path.name} cannot be read as weights: it is cut off, damaged, or no weights."
        ) from error


def _load_pickle(path: Path, stand_in_names: list[str]) -> object:
    import torch

    with (
        torch.serialization.safe_globals([(_stand_in_for(name), name) for name in stand_in_names]),
        warnings.catch_warnings(),
    ):
        # torch warns of every pickle that is not of protocol 2, then reads it or refuses it; that is answer enough.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def _stand_in_for(name: str) -> type:
    return _InertStandIn if name.startswith("numpy.") else _DictStandIn


def _is_inert(name: str) -> bool:
    """Tell whether a name can only be data: a class of some package, by its capital, or one of `INERT_NAMES`."""
    top, last = name.partition(".")[0], name.rpartition(".")[2]
    return name in INERT_NAMES or (top not in sys.stdlib_module_names and last.lstrip("_")[:1].isupper())


def _refuse_code(path: Path, names: set[str]) -> None:
    """Raise WeightsCorrupt for functions and for the standard library. Names of torch are left to torch's own check."""
    code = sorted(name for name in names - TORCH_KNOWN_NAMES if not _is_inert(name) and not name.startswith("torch."))
    if code:
        raise WeightsCorrupt(refusal_message(path.name, code))


def _iter_pickles(path: Path) -> Iterator[IO[bytes]]:
    """Yield the pickles of a file one after the other; each must be read to its end before the next."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            for _ in range(PICKLES_PER_STREAM):
                yield file
            return
        with zipfile.ZipFile(file) as zip_file:
            for entry in zip_file.namelist():
                if entry.endswith("/data.pkl"):
                    yield BytesIO(zip_file.read(entry))


def _refuse_depth(pickled: IO[bytes]) -> None:
    """Raise ValueError for deeply nested tuples: hashing them as a key of a dict would overflow Python's stack.

    Follows the stack of the pickle, where a tuple stands as its depth, a mark as None and all else as 0.
    """
    stack: list[int | None] = []
    memo: dict[Any, int | None] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        if "BINPUT" in opcode.name:
            memo[argument] = stack[-1]
        elif "BINGET" in opcode.name:
            stack.append(memo[argument])
        else:
            deepest = max((depth or 0 for depth in _pop_operands(opcode, stack)), default=0)
            depth = deepest + 1 if opcode.name.startswith("TUPLE") else 0
            if depth > MAX_TUPLE_DEPTH:
                raise ValueError("tuples without end")
            stack += [None if stack_item is pickletools.markobject else depth for stack_item in opcode.stack_after]


def _pop_operands(opcode: pickletools.OpcodeInfo, stack: list[int | None]) -> list[int | None]:
    """What an opcode takes from the stack: so many, or all since the last mark and so many below it."""
    count = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        mark = len(stack) - 1
        while stack[mark] is not None:  # an IndexError, where there is no mark
            mark -= 1
        count = len(stack) - mark + opcode.stack_before.index(pickletools.markobject)
    operands = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return operands


def _iter_globals(file: IO[bytes]) -> Iterator[str]:
    """Names by the opcodes of protocol 2, the one that torch writes. Of later ones torch knows no opcode for a name."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in {"GLOBAL", "INST"}:
            module, _, name = str(argument).partition(" ")
            # Protocol 2 spells the standard library as Python 2 did.
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            yield f"{module}.{name}"
