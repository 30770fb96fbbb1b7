"""Archives of TorchScript give the tensors that torch's own reader gives, and nothing that stands in them is run."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.errors import WeightsCorrupt
from tests.support.tiny_model import IMPORTED_AT, ONE_FILE, equal_states
from worker.weights import WeightsManifest, import_weights, load_imported
from worker.weights.formats import read_container

jit: Any = torch.jit


@contextmanager
def quietly() -> Iterator[None]:
    """Newer releases of torch would rather export; networks that were published as archives stay archives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


class Part(nn.Module):
    """One of everything that a module may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.rows = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Sequential(nn.LayerNorm(2)))
        self.tail = nn.Parameter(self.linear.weight.data[1:, 1:])
        self.turned = nn.Parameter(self.linear.weight.data.t(), requires_grad=False)
        self.scalar, self.none = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.empty(0, 3))
        self.register_buffer("kept", torch.arange(4))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("absent", None)
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        self.constant, self.numbers, self.named, self.word = torch.zeros(4), [1, 2], {"a": 1.0}, "word"

    def forward(self, x_NC: Tensor) -> Tensor:
        numbers = self.numbers[0] + self.named["a"] + self.constant.sum()
        y_NC: Tensor = self.rows(self.linear(x_NC)) + self.tail.sum() + self.turned.sum() + self.scalar + numbers
        return y_NC


class Whole(nn.Module):
    """Modules in modules, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Part()
        self.parts = nn.ModuleList([nn.Linear(2, 2), self.part.rows])
        self.halved, self.brained = nn.Linear(2, 2).half(), nn.Linear(2, 2).bfloat16()

    def forward(self, x_NC: Tensor) -> Tensor:
        y_NC = self.part(x_NC)
        for part in self.parts:
            y_NC = part(y_NC)
        z_NC: Tensor = self.brained(self.halved(y_NC.half()).to(torch.bfloat16))
        return z_NC


def script(module: nn.Module) -> Any:
    return jit.script(module)


def trace(module: nn.Module) -> Any:
    return jit.trace(module, torch.ones(2, 3))


@pytest.mark.parametrize("write", [script, trace])
def test_an_archive_is_read_as_torch_reads_it(write: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = tmp_path / "whole.pt"
    with quietly():
        write(Whole().eval()).save(str(path))
        theirs = jit.load(path).state_dict()
    mine = read_container(path)
    assert equal_states(mine, dict(theirs))
    assert {key: value.dtype for key, value in mine.items()} == {key: value.dtype for key, value in theirs.items()}
    assert {"part.tail", "part.rows.2.0.weight", "parts.1.1.running_var", "part.unsaved"} <= mine.keys()
    assert not {"part.constant", "part.absent", "part.numbers"} & mine.keys()


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    with quietly():
        script(Whole().eval()).save(str(tmp_path / "whole.pt"))
    state = read_container(tmp_path / "whole.pt")
    network = WeightsManifest(
        ONE_FILE.spec, ONE_FILE.tensor_files, {}, {}, lambda: {key: tuple(state[key].shape) for key in state}
    )
    import_weights(network, [tmp_path / "whole.pt"], tmp_path / "weights", IMPORTED_AT)
    served = load_imported(ONE_FILE.spec, (tmp_path / "weights",), network.expected_shapes())
    assert {str(value.dtype) for value in state.values()} >= {"torch.float16", "torch.bfloat16"}
    assert {str(value.dtype) for value in served.values()} == {"torch.float32", "torch.int64", "torch.bool"}
    assert all(torch.equal(served[key], value.to(served[key].dtype)) for key, value in state.items())


# Archives written by hand ---------------------------------------------------------------------------------------------

NET = b"c__torch__\nNet\n)\x81"
"""An object of the class below."""
CODE = 'class Net(Module):\n  __parameters__ = ["a", "b", ]\n  __buffers__ = []\n  a : Tensor\n'
FLOATS = struct.pack("<4f", 1, 2, 3, 4)


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def whole(number: int) -> bytes:
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def view(offset: int, size: list[int], stride: list[int], count: int = 4, entry: str = "0") -> bytes:
    """The pickle of a tensor that lies in an entry of `count` numbers."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(entry) + text("cpu") + whole(count) + b"tQ"
    shape = b"".join(b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (size, stride))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + whole(offset)
        + shape
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def network(attributes: dict[str, bytes]) -> bytes:
    """The pickle of a module; `h\\x00` is itself."""
    entries = b"".join(text(name) + value for name, value in attributes.items())
    return b"\x80\x02" + NET + b"q\x00}(" + entries + b"ub."


def archive(path: Path, pickled: bytes, code: str = CODE, numbers: bytes = FLOATS, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {"data.pkl": pickled, "constants.pkl": b"\x80\x02).", "data/0": numbers, **more}.items():
            file.writestr(f"net/{name}", data)
        file.writestr("net/code/__torch__.py", code, zipfile.ZIP_DEFLATED)
    return path


def test_a_view_is_read_where_it_lies(tmp_path: Path) -> None:
    pickled = network({"a": view(1, [2], [2]), "b": view(0, [2, 2], [1, 2])})
    state = read_container(archive(tmp_path / "net.pt", pickled))
    assert {key: value.tolist() for key, value in state.items()} == {"a": [2, 4], "b": [[1, 3], [2, 4]]}


def test_the_code_of_an_archive_is_not_even_compiled(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = CODE + f"  def forward(self) -> int:\n    what is this\nopen({str(trap)!r}, 'w').close()\n"
    path = archive(tmp_path / "net.pt", network({"a": view(0, [4], [1])}), code, byteorder=b"little")
    with quietly(), pytest.raises(RuntimeError):
        jit.load(path)
    assert read_container(path)["a"].tolist() == [1, 2, 3, 4]
    assert not trap.exists()


def test_shared_modules_have_all_their_names(tmp_path: Path) -> None:
    shared = NET + b"}" + text("a") + view(0, [4], [1]) + b"sbq\x07"
    path = archive(tmp_path / "net.pt", network({"one": shared, "two": b"h\x07"}))
    assert read_container(path).keys() == {"one.a", "two.a"}


def deep(levels: int) -> bytes:
    return b")" + b"\x85" * levels


WRONG: dict[str, bytes] = {
    "past the end": network({"a": view(1, [4], [1])}),
    "before the start": network({"a": view(-1, [2], [1])}),
    "a stride too long": network({"a": view(0, [2, 2], [3, 1])}),
    "a negative stride": network({"a": view(3, [4], [-1])}),
    "a size without end": network({"a": view(0, [1 << 62, 1 << 62], [1, 1])}),
    "larger than an index": network({"a": view(1 << 64, [1], [1])}),
    "more numbers than stored": network({"a": view(0, [4], [1], count=5)}),
    "numbers that are not there": network({"a": view(0, [4], [1], entry="1")}),
    "numbers from elsewhere": network({"a": view(0, [4], [1], entry="../data.pkl")}),
    "a parameter that is a word": network({"a": text("word")}),
    "no module": b"\x80\x02" + view(0, [4], [1]) + b".",
    "a module without a class": b"\x80\x02c__torch__.other\nNet\n)\x81}b.",
    "no class": b"\x80\x02ctorch\nFloatStorage\n)\x81}b.",
    "attributes of a list": b"\x80\x02]}b.",
    "a module in itself": network({"a": view(0, [4], [1]), "self": b"h\x00"}),
    "a module in itself twice": network({"one": b"h\x00", "two": b"h\x00"}),
    "a key of tuples in tuples": b"\x80\x02}" + deep(200_000) + b"Ns.",
    "two things": b"\x80\x02NN.",
    "nothing": b"\x80\x02.",
    "no end": network({})[:-1],
    "a memo that was never made": b"\x80\x02h\x07.",
    "text without end": b"\x80\x02" + b"N0" * (5 << 20),
}


@pytest.mark.parametrize("pickled", WRONG.values(), ids=WRONG)
def test_an_archive_that_makes_no_sense_is_corrupt(pickled: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "net.pt", pickled)
    with pytest.raises(WeightsCorrupt, match=r"^net\.pt "):
        read_container(path)


def test_a_memo_of_any_number_costs_nothing(tmp_path: Path) -> None:
    pickled = network({"a": view(0, [4], [1]), "n": b"Nr\xff\xff\xff\xff"})
    assert read_container(archive(tmp_path / "net.pt", pickled)).keys() == {"a"}


def test_numbers_that_unfold_or_lie_the_other_way_round_are_corrupt(tmp_path: Path) -> None:
    pickled = network({"a": view(0, [4], [1])})
    with pytest.raises(WeightsCorrupt):
        read_container(archive(tmp_path / "net.pt", pickled, byteorder=b"big"))
    with zipfile.ZipFile(tmp_path / "net.pt") as file:
        entries = {name: file.read(name) for name in file.namelist() if not name.endswith("byteorder")}
    with zipfile.ZipFile(tmp_path / "net.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    with pytest.raises(WeightsCorrupt):
        read_container(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("asks", "what"),
    [
        (b"cposix\nsystem\n" + text("touch {trap}") + b"\x85R", r"posix\.system"),
        (b"cbuiltins\neval\n" + text("open('{trap}', 'w')") + b"\x85R", r"builtins\.eval"),
        (b"ctorch\nsave\n" + b"K\x01" + text("{trap}") + b"\x86R", r"torch\.save"),
        (b"cbuiltins\ngetattr\n" + NET + text("__class__") + b"\x86R", r"builtins\.getattr"),
        (b"(" + text("touch {trap}") + b"iposix\nsystem\n", "the opcode INST"),
        (b"(cposix\nsystem\n" + text("touch {trap}") + b"o", r"posix\.system"),
        (text("posix") + text("system") + b"\x93", "the opcode STACK_GLOBAL"),
        (b"\x82\x01", "the opcode EXT1"),
    ],
)
def test_an_archive_that_tries_to_run_code_is_refused_and_nothing_runs(asks: bytes, what: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    words, path = f"{trap}".encode(), tmp_path / "net.pt"
    asks = asks.replace(struct.pack("<I", 12), struct.pack("<I", 6 + len(words))).replace(b"{trap}", words)
    archive(path, network({"a": view(0, [4], [1]), "hook": asks}))
    with pytest.raises(WeightsCorrupt, match=f"net.pt is refused: it asks for {what}, which no weights need"):
        import_weights(ONE_FILE, [path], tmp_path / "weights", IMPORTED_AT)
    assert list(tmp_path.iterdir()) == [path]


def test_a_pickle_for_python_in_an_archive_is_not_run(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "trap",)

    for protocol in range(5):
        with pytest.raises(WeightsCorrupt):
            read_container(archive(tmp_path / "net.pt", pickle.dumps(Call(), protocol)))
    assert list(tmp_path.iterdir()) == [tmp_path / "net.pt"]
