"""R(2+1)D-26 in more of the files that people have, beside those of `r2plus1d/test_served.py`, and in wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.errors import WeightsCorrupt
from tests.support.checkpoints import (
    IMPORTED_AT,
    StateDict,
    add_prefix,
    drop_keys,
    import_fingerprint,
    temporary_folder,
)
from tests.support.seeded_networks import build_r2plus1d
from worker.models.r2plus1d.weights import WEIGHTS_MANIFEST
from worker.weights import compute_fingerprint, import_weights


@pytest.fixture(scope="module")
def state() -> StateDict:
    """All tensors of the published file, its counters among them."""
    return dict(build_r2plus1d().network.state_dict())


@pytest.fixture(scope="module")
def folder(state: StateDict) -> Iterator[Path]:
    """With weights of the flat file."""
    with temporary_folder() as place:
        import_fingerprint(WEIGHTS_MANIFEST, state, place)
        yield place


def counted(state: StateDict) -> Any:
    """Batches were counted; the hub's file may hold counters or not."""
    return {key: value + 7 if key.endswith("num_batches_tracked") else value for key, value in state.items()}


def pretrained(state: StateDict) -> Any:
    """`epoch_N.pth` of CMD: the whole network of pre-training on many GPUs."""
    others = {"m_backbone.conv1.weight": torch.ones(2), "mq_head.0.weight": torch.ones(2), "q_embedding": torch.ones(2)}
    return add_prefix("module.", add_prefix("rgb_backbone.", state) | others)


def tuned(state: StateDict) -> Any:
    return {"epoch": 120, "state_dict": state | {"fc.weight": torch.ones(101, 2048), "fc.bias": torch.ones(101)}}


def wrapped(state: StateDict) -> Any:
    """ModelScope's trainer saves its wrapper's names."""
    return add_prefix("model.", state)


@pytest.mark.parametrize("form", [counted, tuned, wrapped])
def test_every_form_gives_the_same_weights(form: Callable[[StateDict], Any], state: StateDict, folder: Path) -> None:
    with temporary_folder() as other:
        assert import_fingerprint(WEIGHTS_MANIFEST, form(state), other) == compute_fingerprint(
            WEIGHTS_MANIFEST.spec, [folder / "weights"]
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: drop_keys(state, "layer1.0.bn1.weight"), r"1 missing \(layer1\.0\.bn1\.weight\)"),
        (lambda state: state | {"layer5.0.bn1.weight": torch.ones(1)}, r"1 unknown \(layer5\.0\.bn1\.weight\)"),
        (lambda state: state | {"conv1_s.weight": torch.ones(45, 3, 1, 7, 7)}, r"45x3x1x7x7 instead of 83x3x1x7x7"),
        (lambda state: drop_keys(pretrained(state), "module.rgb_backbone.bn1_s.bias"), r"1 missing \(bn1_s\.bias\)"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[StateDict], StateDict], said: str, state: StateDict, tmp_path: Path
) -> None:
    empty = {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}
    with pytest.raises(WeightsCorrupt, match=said):
        import_fingerprint(WEIGHTS_MANIFEST, change(empty), tmp_path)
    assert not (tmp_path / "weights").exists()


def test_a_file_that_is_cut_off_is_corrupt(folder: Path) -> None:
    whole = (folder / "pytorch_model.pt").read_bytes()
    with temporary_folder() as other:
        (other / "pytorch_model.pt").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WeightsCorrupt, match=r"pytorch_model\.pt cannot be read as weights: it is cut off"):
            import_weights(WEIGHTS_MANIFEST, [other], other / "weights", IMPORTED_AT)
