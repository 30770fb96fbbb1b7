"""Load CLIP and the scorer from the published files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from shared.catalog import CATALOG
from worker.models.clip_it.config import ARCHITECTURE, CROP
from worker.models.clip_it.network import ClipIt, position_table
from worker.networks.clip.network import CLIP_MEAN, CLIP_STD, HEADER_ENTRIES, VIT_B_32, openai_shapes
from worker.runtime.device import DeviceNetwork
from worker.runtime.placement import Placement
from worker.weights import TensorFile, WeightsManifest, load_imported
from worker.weights.formats import Shapes
from worker.weights.pinned import state_shapes

SCORER_PREFIX, CLIP_PREFIX = "scorer.", "clip."
"""Before the published names of each network in the file that is served."""

POSITION_TABLE_KEY = "encoder.position_enc.pos_table"
"""The table of positions: a constant, which published files hold."""


def load_network(folders: Sequence[Path], placement: Placement) -> DeviceNetwork[ClipIt]:
    """Load both networks on their device.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.weights`.
    """
    state = load_imported(WEIGHTS_MANIFEST.spec, folders, expected_shapes())
    network = _build_empty_network()
    network.scorer.load_state_dict(
        {POSITION_TABLE_KEY: _make_position_table(), **_strip_prefix(state, SCORER_PREFIX)}, strict=True, assign=True
    )
    network.clip.load_openai_tensors(_strip_prefix(state, CLIP_PREFIX))
    return DeviceNetwork.load_on(network, placement.device, placement.precision)


def expected_shapes() -> Shapes:
    """Name and shape of every tensor that is served, by its published name."""
    scorer = {
        key: shape for key, shape in state_shapes(_build_empty_network().scorer).items() if key != POSITION_TABLE_KEY
    }
    parts = {SCORER_PREFIX: scorer, CLIP_PREFIX: openai_shapes()}
    return {prefix + key: shape for prefix, part in parts.items() for key, shape in part.items()}


def _build_empty_network() -> ClipIt:
    """Build the networks on the `meta` device: names and shapes without memory."""
    with torch.device("meta"):
        return ClipIt()


def _strip_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _make_position_table() -> Tensor:
    return position_table(ARCHITECTURE.max_positions, ARCHITECTURE.width)


WEIGHTS_SPEC = CATALOG["clip_it"].weights
assert WEIGHTS_SPEC is not None
WEIGHTS_MANIFEST = WeightsManifest(
    spec=WEIGHTS_SPEC,
    tensor_files=(
        TensorFile(
            name="pytorch_model.pt",
            description="the scorer",
            drop_patterns=("decoder.*", "layer_norm_img_src.*", "layer_norm_img_trg.*", "layer_norm_txt.*"),
            add_prefix=SCORER_PREFIX,
            wrapper_prefix="model.",  # ModelScope's trainer saves it so
        ),
        TensorFile(
            name="clip/ViT-B-32.pt",
            description="OpenAI's CLIP",
            drop_patterns=HEADER_ENTRIES,
            add_prefix=CLIP_PREFIX,
            sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        ),
    ),
    architecture={"scorer": asdict(ARCHITECTURE), "clip": asdict(VIT_B_32)},
    preprocessing={**asdict(CROP), "mean": CLIP_MEAN, "std": CLIP_STD},
    expected_shapes=expected_shapes,
    repository="damo/cv_clip-it_video-summarization_language-guided_en",
    make_constants=lambda: {SCORER_PREFIX + POSITION_TABLE_KEY: _make_position_table()},
)
