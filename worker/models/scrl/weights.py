"""From the two published files to SCRL in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from shared.catalog import MENU
from worker.encoders.placed import MEAN, STD, Placed
from worker.encoders.published import Published, Source, load_imported
from worker.encoders.weights import shapes
from worker.models.placement import Placement
from worker.models.scrl.config import ARCHITECTURE, CROP
from worker.models.scrl.network import SCRL


def load(folders: Sequence[Path], placement: Placement) -> Placed[SCRL]:
    """The network in place.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.encoders.published`.
    """
    network = _empty()
    network.load_state_dict(load_imported(PUBLISHED.spec, folders, shapes(network)), strict=True, assign=True)
    return Placed.put(network, placement.device, placement.precision)


def _empty() -> SCRL:
    """The network without numbers: names and shapes, at no cost."""
    with torch.device("meta"):
        return SCRL()


SPEC = MENU["scrl"].weights
assert SPEC is not None
PUBLISHED = Published(
    spec=SPEC,
    sources=(
        Source(
            name="checkpoint.pth.tar",
            what="pre-training: the encoder of queries is the shot encoder",
            # The momentum encoder, its queue and the projection heads serve pre-training only.
            drop=("encoder_k.*", "queue", "queue_ptr", "encoder_q.fc.*", "fc.*"),
            strip="encoder_q.",
            put="encoder.",
        ),
        Source(name="model_best.pth.tar", what="the boundary network (Bi-LSTM)", put="boundary."),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={**asdict(CROP), "keyframes": 3, "mean": MEAN, "std": STD},
    expected=lambda: shapes(_empty()),
)
