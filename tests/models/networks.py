"""Networks with name-seeded weights, in place, for the rooms whose weights are imported."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tests.models.seeded import seeded, table
from worker.encoders.placed import Placed
from worker.models.bassl.network import BaSSL
from worker.models.clip_it.network import ClipIt, Scorer
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
def clip_it() -> Placed[ClipIt]:
    """CLIP and the scorer on the CPU in fp32."""
    with torch.device("meta"):
        network = ClipIt()
    network.clip.take(clip_state())
    network.scorer = Scorer(whole=False)
    seeded(network.scorer, "clip_it", drop=("decoder.", "layer_norm_"))
    return Placed.put(network, "cpu", "fp32")


NETWORKS: dict[str, Callable[[], Any]] = {"bassl": bassl, "scrl": scrl, "clip_it": clip_it, "r2plus1d": r2plus1d}
