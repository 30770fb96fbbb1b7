"""Published containers are read whole or not at all, and nothing in them runs."""

from __future__ import annotations

import argparse
import builtins
import enum
import os
import pickle
import pickletools
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.errors import WeightsCorrupt
from tests.support.tiny_model import (
    CONTAINERS,
    IMPORTED_AT,
    ONE_FILE,
    STATE,
    StateDict,
    equal_states,
    save_legacy,
    save_zip,
)
from worker.weights import import_weights
from worker.weights.formats import read_container

every_container = pytest.mark.parametrize("write", CONTAINERS.values(), ids=CONTAINERS)


@every_container
def test_every_container_is_read(write: Callable[[StateDict, Path], None], tmp_path: Path) -> None:
    write(STATE, tmp_path / "published.pt")
    assert equal_states(read_container(tmp_path / "published.pt"), STATE)


# Classes that Lightning and a settings package leave in a checkpoint --------------------------------------------------


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """Entries of a Lightning checkpoint made of classes that are gone once the file is written."""
    package = types.ModuleType("lightning_of_the_authors")
    settings = type("AttributeDict", (dict,), {"__module__": package.__name__})
    callback = type("ModelCheckpoint", (), {"__module__": package.__name__})
    phase = enum.Enum("Phase", {"FIT": "fit"}, module=package.__name__)
    for thing in (settings, callback, phase):
        monkeypatch.setattr(package, thing.__name__, thing, raising=False)

    def entries() -> dict[str, Any]:
        hyper = settings(lr=0.1, nested=settings(batch=16))
        hyper.__dict__["also"] = "an attribute"
        best = callback()
        best.path, best.score = Path("last.ckpt"), np.float32(0.5)
        return {
            "epoch": 3,
            "pytorch-lightning_version": "1.3.8",
            "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "made": best}},
            "hyper_parameters": hyper,
            "command": argparse.Namespace(gpus=[0, 1]),
            "seen": defaultdict(int, train=3),
            "phase": phase.FIT,
        }

    monkeypatch.setitem(sys.modules, package.__name__, package)
    return entries


def forget() -> None:
    del sys.modules["lightning_of_the_authors"]


@pytest.mark.parametrize("write", [save_zip, save_legacy])
def test_settings_beside_the_weights_do_not_matter(
    write: Callable[[Any, Path], None], lightning: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    write({"state_dict": STATE, **lightning()}, tmp_path / "model-v1.ckpt")
    forget()
    before = torch.serialization.get_safe_globals()
    assert equal_states(read_container(tmp_path / "model-v1.ckpt"), STATE)
    assert set(torch.serialization.get_safe_globals()) == set(before)


class Member:
    """Pickled as Python 3.11.0 to 3.11.3 pickle a member of an enumeration: by `getattr`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (OrderedDict, "fromkeys")


@pytest.mark.parametrize("write", [save_zip, save_legacy])
def test_members_of_enumerations_do_not_matter(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    write({"state_dict": STATE, "phase": Member()}, tmp_path / "model-v1.ckpt")
    assert equal_states(read_container(tmp_path / "model-v1.ckpt"), STATE)


# Damage ---------------------------------------------------------------------------------------------------------------


@every_container
def test_a_file_that_is_cut_off_is_corrupt(write: Callable[[StateDict, Path], None], tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    write(STATE, path)
    whole = path.read_bytes()
    for size in (0, 1, 2, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsCorrupt):
            import_weights(ONE_FILE, [path], tmp_path / "weights", IMPORTED_AT)


@every_container
def test_damage_is_corrupt_or_other_numbers_and_nothing_else(
    write: Callable[[StateDict, Path], None], tmp_path: Path
) -> None:
    path, draw = tmp_path / "damaged.pt", np.random.RandomState(5)
    write(STATE, path)
    whole = path.read_bytes()
    for _ in range(150):
        spoiled = bytearray(whole)
        for at in draw.randint(0, len(whole), 3):
            spoiled[at] = draw.randint(256)
        path.write_bytes(spoiled)
        try:
            read = read_container(path)
        except WeightsCorrupt:
            continue
        assert all(isinstance(value, Tensor) for value in read.values())


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04", b"\x80\x02", b"\x08\0\0\0\0\0\0\0{", b"ustar" * 99])
def test_what_is_no_container_is_corrupt(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(WeightsCorrupt, match=r"^odd\.pt "):
        read_container(tmp_path / "odd.pt")


@pytest.mark.parametrize(
    "payload",
    [[torch.zeros(1)], {}, {"state_dict": []}, {"state_dict": {"a": 1}}, {1: torch.zeros(1)}, torch.zeros(1), 7,
     {"a": torch.zeros(2).to_sparse()}],
)  # fmt: skip
def test_anything_but_tensors_by_name_is_corrupt(payload: Any, tmp_path: Path) -> None:
    save_zip(payload, tmp_path / "odd.pt")
    with pytest.raises(WeightsCorrupt, match="something other than tensors by name"):
        read_container(tmp_path / "odd.pt")


TUPLES = b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."
"""A dict with a key of tuples in tuples: to hash it would overrun the stack of Python itself."""


def test_tuples_without_end_are_corrupt(tmp_path: Path) -> None:
    save_zip(STATE, tmp_path / "zip.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as file:
        for name, data in entries.items():
            file.writestr(name, TUPLES if name.endswith("data.pkl") else data)
    save_legacy(STATE, tmp_path / "stream.pt")
    with (tmp_path / "stream.pt").open("rb") as stream:
        for _ in range(3):
            assert list(pickletools.genops(stream))
        head = stream.tell()
    (tmp_path / "stream.pt").write_bytes((tmp_path / "stream.pt").read_bytes()[:head] + TUPLES)
    for path in (tmp_path / "zip.pt", tmp_path / "stream.pt"):
        with pytest.raises(WeightsCorrupt):
            read_container(path)


def test_a_whole_network_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "linear.pt")
    with pytest.raises(WeightsCorrupt):
        read_container(tmp_path / "linear.pt")


# Code -----------------------------------------------------------------------------------------------------------------


class Call:
    """Calls something when it is unpickled by Python itself."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.function, self.arguments


def calls(trap: Path) -> dict[str, Call]:
    command, written = f"touch {trap}", f"open({str(trap)!r}, 'w').close()"
    return {
        "posix.system": Call(os.system, command),
        "subprocess.Popen": Call(subprocess.Popen, command, -1, None, None, None, None, None, True, True),
        "builtins.eval": Call(builtins.eval, written),
        "torch.save": Call(torch.save, 1, str(trap)),
        "numpy.save": Call(np.save, str(trap), 1),
    }


PAYLOADS = list(calls(Path("trap")))
HIDING: dict[str, Callable[[StateDict, Call, Path], None]] = {
    "as the file": lambda _, call, path: save_zip(call, path),
    "as a tensor": lambda state, call, path: save_zip(state | {"boundary.bias": call}, path),
    "among settings": lambda state, call, path: save_zip({"state_dict": state, "hyper_parameters": {"lr": call}}, path),
    "in a stream": lambda state, call, path: save_legacy({"state_dict": state, "epoch": call}, path),
    "in a bare pickle": lambda state, call, path: path.write_bytes(pickle.dumps(call, protocol=2)) and None,
    "in a newer pickle": lambda state, call, path: path.write_bytes(pickle.dumps(call, protocol=4)) and None,
}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_file_that_tries_to_run_code_is_refused_and_nothing_runs(
    payload: str, hide: Callable[[StateDict, Call, Path], None], tmp_path: Path
) -> None:
    trap, path = tmp_path / "trap", tmp_path / "published.pt"
    hide(STATE, calls(trap)[payload], path)
    with pytest.raises(WeightsCorrupt):
        import_weights(ONE_FILE, [path], tmp_path / "weights", IMPORTED_AT)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payloads_do_run_where_nobody_guards(payload: str, tmp_path: Path) -> None:
    """What makes the test above worth something."""
    made = pickle.loads(pickle.dumps(calls(tmp_path / "trap")[payload], protocol=2))
    if isinstance(made, subprocess.Popen):
        made.wait()
    assert list(tmp_path.iterdir())


def test_the_refusal_names_the_code(tmp_path: Path) -> None:
    save_zip({"state_dict": STATE, "lr": calls(tmp_path / "trap")["posix.system"]}, tmp_path / "model.ckpt")
    with pytest.raises(WeightsCorrupt, match=r"model\.ckpt is refused: it asks for posix\.system"):
        read_container(tmp_path / "model.ckpt")


def test_a_foreign_class_is_neither_imported_nor_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with that very name lies ready to be imported, and says so if it is."""
    package = types.ModuleType("package_with_a_trap")
    package.__dict__["Trap"] = type("Trap", (), {"__module__": package.__name__})
    monkeypatch.setitem(sys.modules, package.__name__, package)
    save_zip({"state_dict": STATE, "made": Call(package.__dict__["Trap"])}, tmp_path / "model.ckpt")
    del sys.modules[package.__name__]
    trap = tmp_path / "trap"
    (tmp_path / f"{package.__name__}.py").write_text(f"open({str(trap)!r}, 'w').close()\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert equal_states(read_container(tmp_path / "model.ckpt"), STATE)
    assert not trap.exists()
    assert package.__name__ not in sys.modules
