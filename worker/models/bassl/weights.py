"""From the published file to BaSSL in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from shared.catalog import MENU
from worker.encoders.placed import MEAN, STD, Placed
from worker.encoders.published import Published, Source, load_imported
from worker.encoders.weights import shapes
from worker.models.bassl.config import ARCHITECTURE, CROP
from worker.models.bassl.network import BaSSL
from worker.models.placement import Placement


def load(folders: Sequence[Path], placement: Placement) -> Placed[BaSSL]:
    """The network in place.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.encoders.published`.
    """
    network = _empty()
    network.load_state_dict(load_imported(PUBLISHED.spec, folders, shapes(network)), strict=True, assign=True)
    return Placed.put(network, placement.device, placement.precision)


def _empty() -> BaSSL:
    """The network without numbers: names and shapes, at no cost."""
    with torch.device("meta"):
        return BaSSL()


SPEC = MENU["bassl"].weights
assert SPEC is not None
PUBLISHED = Published(
    spec=SPEC,
    sources=(
        Source(
            name="pytorch_model.pt",
            what="the fine-tuned network",
            drop=("loss.*",),  # heads of pre-training, which upstream's own checkpoints still carry
        ),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={**asdict(CROP), "mean": MEAN, "std": STD},
    expected=lambda: shapes(_empty()),
    repository="damo/cv_resnet50-bert_video-scene-segmentation_movienet",
)
