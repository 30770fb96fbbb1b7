"""From the published files to MTTR in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from shared.catalog import MENU
from worker.encoders.containers import Shapes
from worker.encoders.placed import MEAN, STD, Placed
from worker.encoders.published import Published, Side, Source, load_imported, side_files
from worker.encoders.roberta import LONGEST, read_tokenizer
from worker.encoders.video_swin import relative_positions
from worker.encoders.weights import shapes
from worker.models.mttr.config import ARCHITECTURE, LONG_SIDE, SHORT_SIDE
from worker.models.mttr.grounding import Grounding
from worker.models.mttr.network import MTTR
from worker.models.placement import Placement

INDEX = ".relative_position_index"
"""How the names of the tables end that say which bias belongs to which two tokens."""

PLACES = "transformer.text_encoder.embeddings.position_ids"
"""RoBERTa's positions: a constant of older releases of `transformers`, in the published files."""


def load(folders: Sequence[Path], placement: Placement) -> Grounding:
    """The network in place, and its tokenizer.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.encoders.published`.
    """
    network = empty()
    state = load_imported(PUBLISHED.spec, folders, expected())
    sides = side_files(PUBLISHED, folders)
    network.load_state_dict({**indices(network), **state}, strict=True, assign=True)
    tokenizer = read_tokenizer(sides["vocab.json"], sides["merges.txt"])
    return Grounding(Placed.put(network, placement.device, placement.precision), tokenizer)


def empty() -> MTTR:
    """The network without numbers: names and shapes, at no cost."""
    with torch.device("meta"):
        return MTTR()


def expected() -> Shapes:
    """Name and shape of every tensor that is served."""
    return {key: shape for key, shape in shapes(empty()).items() if not key.endswith(INDEX)}


def indices(network: MTTR) -> dict[str, Tensor]:
    """The tables that the network makes itself, by the names it has for them."""
    table_NN = relative_positions(ARCHITECTURE.backbone.window)
    return {key: table_NN for key in shapes(network) if key.endswith(INDEX)}


def _constants() -> Mapping[str, Tensor]:
    return {**indices(empty()), PLACES: torch.arange(LONGEST + 2)[None]}


SPEC = MENU["mttr"].weights
assert SPEC is not None
PUBLISHED = Published(
    spec=SPEC,
    sources=(
        Source(
            name="pytorch_model.pt",
            what="the network, or the authors' own checkpoint (*.pth.tar)",
            wrapper="model.",  # ModelScope's trainer saves it so
        ),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={"short_side": SHORT_SIDE, "long_side": LONG_SIDE, "mean": MEAN, "std": STD},
    expected=expected,
    repository="damo/cv_swin-t_referring_video-object-segmentation",
    sides=(
        Side("transformer_cfg_dir/vocab.json", "vocab.json", "the tokens of RoBERTa"),
        Side("transformer_cfg_dir/merges.txt", "merges.txt", "the pairs that RoBERTa's tokenizer merges"),
    ),
    constants=_constants,
    check=lambda sides: read_tokenizer(sides["vocab.json"], sides["merges.txt"]),
)
