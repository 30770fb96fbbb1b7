"""Networks with name-seeded weights, in place, for the rooms whose weights are imported."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tests.models.rooms.mttr import vocabulary
from tests.models.seeded import seeded, table
from worker.encoders.placed import Placed
from worker.encoders.roberta import read_tokenizer
from worker.models.bassl.network import BaSSL
from worker.models.clip_it.network import ClipIt, Scorer
from worker.models.mttr.grounding import Grounding
from worker.models.mttr.weights import empty, indices
from worker.models.r2plus1d.network import R2Plus1D
from worker.models.scrl.network import SCRL


@cache
def bassl() -> Placed[BaSSL]:
    """BaSSL on the CPU in fp32."""
    network = BaSSL()
    seeded(network, "bassl")
    return Placed.put(network, "cpu", "fp32")


@cache
def scrl() -> Placed[SCRL]:
    """SCRL on the CPU in fp32."""
    network = SCRL()
    seeded(network.encoder, "scrl_encoder", drop="fc.")
    seeded(network.boundary, "scrl_bilstm")
    return Placed.put(network, "cpu", "fp32")


@cache
def r2plus1d() -> Placed[R2Plus1D]:
    """R(2+1)D-26 on the CPU in fp32."""
    network = R2Plus1D()
    seeded(network, "r2plus1d")
    return Placed.put(network, "cpu", "fp32")


def clip_state() -> dict[str, Tensor]:
    """OpenAI's file of ViT-B/32, as tensors by name."""
    return {"logit_scale": torch.tensor(0.0)} | {
        row.key: row.value() for row in table("clip_it_clip") if row.kind != "keep"
    }


@cache
@torch.inference_mode(False)
def clip_it() -> Placed[ClipIt]:
    """CLIP and the scorer on the CPU in fp32; whoever asks first, its tensors can be trained."""
    with torch.device("meta"):
        network = ClipIt()
    network.clip.take(clip_state())
    network.scorer = Scorer(whole=False)
    seeded(network.scorer, "clip_it", drop=("decoder.", "layer_norm_"))
    return Placed.put(network, "cpu", "fp32")


@cache
@torch.inference_mode(False)
def mttr() -> Grounding:
    """MTTR on the CPU in fp32, with a tokenizer that knows few words."""
    network = empty()
    state = {row.key: row.value() for row in table("mttr") if row.kind != "keep"}
    network.load_state_dict({**indices(network), **state}, strict=True, assign=True)
    with TemporaryDirectory() as folder:
        tokenizer = read_tokenizer(*vocabulary.write(Path(folder)))
    return Grounding(Placed.put(network, "cpu", "fp32"), tokenizer)


NETWORKS: dict[str, Callable[[], Any]] = {
    "bassl": bassl,
    "scrl": scrl,
    "clip_it": clip_it,
    "r2plus1d": r2plus1d,
    "mttr": mttr,
}
