"""R(2+1)D-26 in more of the files that people have, beside those of `r2plus1d/test_served.py`, and in wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.errors import WeightsCorrupt
from tests.models.networks import r2plus1d
from tests.models.rooms.published.made import AT, State, folder_that_goes, took, under, without
from worker.encoders.published import fingerprint, import_weights
from worker.models.r2plus1d.weights import PUBLISHED


@pytest.fixture(scope="module")
def state() -> State:
    """All tensors of the published file, its counters among them."""
    return dict(r2plus1d().network.state_dict())


@pytest.fixture(scope="module")
def folder(state: State) -> Iterator[Path]:
    """With weights of the flat file."""
    with folder_that_goes() as place:
        took(PUBLISHED, state, place)
        yield place


def counted(state: State) -> Any:
    """Batches were counted; the hub's file may hold counters or not."""
    return {key: value + 7 if key.endswith("num_batches_tracked") else value for key, value in state.items()}


def pretrained(state: State) -> Any:
    """`epoch_N.pth` of CMD: the whole network of pre-training on many GPUs."""
    others = {"m_backbone.conv1.weight": torch.ones(2), "mq_head.0.weight": torch.ones(2), "q_embedding": torch.ones(2)}
    return under("module.", under("rgb_backbone.", state) | others)


def tuned(state: State) -> Any:
    return {"epoch": 120, "state_dict": state | {"fc.weight": torch.ones(101, 2048), "fc.bias": torch.ones(101)}}


def wrapped(state: State) -> Any:
    """ModelScope's trainer saves its wrapper's names."""
    return under("model.", state)


@pytest.mark.parametrize("form", [counted, tuned, wrapped])
def test_every_form_gives_the_same_weights(form: Callable[[State], Any], state: State, folder: Path) -> None:
    with folder_that_goes() as other:
        assert took(PUBLISHED, form(state), other) == fingerprint(PUBLISHED.spec, [folder / "weights"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: without(state, "layer1.0.bn1.weight"), r"1 missing \(layer1\.0\.bn1\.weight\)"),
        (lambda state: state | {"layer5.0.bn1.weight": torch.ones(1)}, r"1 unknown \(layer5\.0\.bn1\.weight\)"),
        (lambda state: state | {"conv1_s.weight": torch.ones(45, 3, 1, 7, 7)}, r"45x3x1x7x7 instead of 83x3x1x7x7"),
        (lambda state: without(pretrained(state), "module.rgb_backbone.bn1_s.bias"), r"1 missing \(bn1_s\.bias\)"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[State], State], said: str, state: State, tmp_path: Path) -> None:
    empty = {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}
    with pytest.raises(WeightsCorrupt, match=said):
        took(PUBLISHED, change(empty), tmp_path)
    assert not (tmp_path / "weights").exists()


def test_a_file_that_is_cut_off_is_corrupt(folder: Path) -> None:
    whole = (folder / "pytorch_model.pt").read_bytes()
    with folder_that_goes() as other:
        (other / "pytorch_model.pt").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WeightsCorrupt, match=r"pytorch_model\.pt cannot be read as weights: it is cut off"):
            import_weights(PUBLISHED, [other], other / "weights", AT)
