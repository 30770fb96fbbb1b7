"""From the published files to CLIP and scorer in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from shared.catalog import MENU
from worker.encoders.clip.network import HEADER, MEAN, STD, VIT_B_32, published_shapes
from worker.encoders.containers import Shapes
from worker.encoders.placed import Placed
from worker.encoders.published import Published, Source, load_imported
from worker.encoders.weights import shapes
from worker.models.clip_it.config import ARCHITECTURE, CROP
from worker.models.clip_it.network import ClipIt, positions
from worker.models.placement import Placement

SCORER, CLIP = "scorer.", "clip."
"""Before the published names of each network in the file that is served."""

TABLE = "encoder.position_enc.pos_table"
"""The table of positions: a constant, which published files hold."""


def load(folders: Sequence[Path], placement: Placement) -> Placed[ClipIt]:
    """Both networks in place.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.encoders.published`.
    """
    state = load_imported(PUBLISHED.spec, folders, expected())
    network = _empty()
    network.scorer.load_state_dict({TABLE: _table(), **_of(state, SCORER)}, strict=True, assign=True)
    network.clip.take(_of(state, CLIP))
    return Placed.put(network, placement.device, placement.precision)


def expected() -> Shapes:
    """Name and shape of every tensor that is served, by its published name."""
    scorer = {key: shape for key, shape in shapes(_empty().scorer).items() if key != TABLE}
    parts = {SCORER: scorer, CLIP: published_shapes()}
    return {prefix + key: shape for prefix, part in parts.items() for key, shape in part.items()}


def _empty() -> ClipIt:
    """The networks without numbers: names and shapes, at no cost."""
    with torch.device("meta"):
        return ClipIt()


def _of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _table() -> Tensor:
    return positions(ARCHITECTURE.places, ARCHITECTURE.width)


SPEC = MENU["clip_it"].weights
assert SPEC is not None
PUBLISHED = Published(
    spec=SPEC,
    sources=(
        Source(
            name="pytorch_model.pt",
            what="the scorer",
            drop=("decoder.*", "layer_norm_img_src.*", "layer_norm_img_trg.*", "layer_norm_txt.*"),
            put=SCORER,
            wrapper="model.",  # ModelScope's trainer saves it so
        ),
        Source(
            name="clip/ViT-B-32.pt",
            what="OpenAI's CLIP",
            drop=HEADER,
            put=CLIP,
            sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        ),
    ),
    architecture={"scorer": asdict(ARCHITECTURE), "clip": asdict(VIT_B_32)},
    preprocessing={**asdict(CROP), "mean": MEAN, "std": STD},
    expected=expected,
    repository="damo/cv_clip-it_video-summarization_language-guided_en",
    constants=lambda: {SCORER + TABLE: _table()},
)
