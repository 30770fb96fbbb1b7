"""Load MTTR from the published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from shared.catalog import CATALOG
from worker.models.mttr.config import ARCHITECTURE, LONG_SIDE, SHORT_SIDE
from worker.models.mttr.grounding import Grounding
from worker.models.mttr.network import MTTR
from worker.networks.roberta import MAX_TOKENS, read_tokenizer
from worker.networks.video_swin import relative_positions
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD, DeviceNetwork
from worker.runtime.placement import Placement
from worker.weights import SideFile, TensorFile, WeightsManifest, find_side_files, load_imported
from worker.weights.formats import Shapes
from worker.weights.pinned import state_shapes

INDEX_SUFFIX = ".relative_position_index"
"""How the names of the tables end that say which bias belongs to which two tokens."""

POSITION_IDS_KEY = "transformer.text_encoder.embeddings.position_ids"
"""RoBERTa's positions: a constant of older releases of `transformers`, in the published files."""


def load_network(folders: Sequence[Path], placement: Placement) -> Grounding:
    """Load the network on its device, and its tokenizer.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.weights`.
    """
    network = build_empty_network()
    state = load_imported(WEIGHTS_MANIFEST.spec, folders, expected_shapes())
    side_paths = find_side_files(WEIGHTS_MANIFEST, folders)
    network.load_state_dict({**make_index_tables(network), **state}, strict=True, assign=True)
    tokenizer = read_tokenizer(side_paths["vocab.json"], side_paths["merges.txt"])
    return Grounding(DeviceNetwork.load_on(network, placement.device, placement.precision), tokenizer)


def build_empty_network() -> MTTR:
    """Build the network on the `meta` device: names and shapes without memory."""
    with torch.device("meta"):
        return MTTR()


def expected_shapes() -> Shapes:
    """Name and shape of every tensor that is served."""
    return {key: shape for key, shape in state_shapes(build_empty_network()).items() if not key.endswith(INDEX_SUFFIX)}


def make_index_tables(network: MTTR) -> dict[str, Tensor]:
    """The tables that the network makes itself, by the names it has for them."""
    table_NN = relative_positions(ARCHITECTURE.backbone.window)
    return {key: table_NN for key in state_shapes(network) if key.endswith(INDEX_SUFFIX)}


def _make_constants() -> Mapping[str, Tensor]:
    return {**make_index_tables(build_empty_network()), POSITION_IDS_KEY: torch.arange(MAX_TOKENS + 2)[None]}


WEIGHTS_SPEC = CATALOG["mttr"].weights
assert WEIGHTS_SPEC is not None
WEIGHTS_MANIFEST = WeightsManifest(
    spec=WEIGHTS_SPEC,
    tensor_files=(
        TensorFile(
            name="pytorch_model.pt",
            description="the network, or the authors' own checkpoint (*.pth.tar)",
            wrapper_prefix="model.",  # ModelScope's trainer saves it so
        ),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={"short_side": SHORT_SIDE, "long_side": LONG_SIDE, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    expected_shapes=expected_shapes,
    repository="damo/cv_swin-t_referring_video-object-segmentation",
    side_files=(
        SideFile("transformer_cfg_dir/vocab.json", "vocab.json", "the tokens of RoBERTa"),
        SideFile("transformer_cfg_dir/merges.txt", "merges.txt", "the pairs that RoBERTa's tokenizer merges"),
    ),
    make_constants=_make_constants,
    check_side_files=lambda sides: read_tokenizer(sides["vocab.json"], sides["merges.txt"]),
)
