"""Networks with name-seeded weights, in place, for the models whose weights are imported."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tests.support import vocabulary
from tests.support.seeded_weights import load_seeded_weights, read_table
from worker.models.bassl.network import BaSSL
from worker.models.clip_it.network import ClipIt, FrameScorer
from worker.models.mttr.grounding import Grounding
from worker.models.mttr.weights import build_empty_network, make_index_tables
from worker.models.r2plus1d.network import R2Plus1D
from worker.models.scrl.network import SCRL
from worker.networks.roberta import read_tokenizer
from worker.runtime.device import DeviceNetwork


@cache
def build_bassl() -> DeviceNetwork[BaSSL]:
    """BaSSL on the CPU in fp32."""
    network = BaSSL()
    load_seeded_weights(network, "bassl")
    return DeviceNetwork.load_on(network, "cpu", "fp32")


@cache
def build_scrl() -> DeviceNetwork[SCRL]:
    """SCRL on the CPU in fp32."""
    network = SCRL()
    load_seeded_weights(network.encoder, "scrl_encoder", drop="fc.")
    load_seeded_weights(network.boundary, "scrl_bilstm")
    return DeviceNetwork.load_on(network, "cpu", "fp32")


@cache
def build_r2plus1d() -> DeviceNetwork[R2Plus1D]:
    """R(2+1)D-26 on the CPU in fp32."""
    network = R2Plus1D()
    load_seeded_weights(network, "r2plus1d")
    return DeviceNetwork.load_on(network, "cpu", "fp32")


def make_clip_state() -> dict[str, Tensor]:
    """OpenAI's file of ViT-B/32, as tensors by name."""
    return {"logit_scale": torch.tensor(0.0)} | {
        row.key: row.make_tensor() for row in read_table("clip_it_clip") if row.kind != "keep"
    }


@cache
@torch.inference_mode(False)
def build_clip_it() -> DeviceNetwork[ClipIt]:
    """CLIP and the scorer on the CPU in fp32; whoever asks first, its tensors can be trained."""
    with torch.device("meta"):
        network = ClipIt()
    network.clip.load_openai_tensors(make_clip_state())
    network.scorer = FrameScorer(full=False)
    load_seeded_weights(network.scorer, "clip_it", drop=("decoder.", "layer_norm_"))
    return DeviceNetwork.load_on(network, "cpu", "fp32")


@cache
@torch.inference_mode(False)
def build_mttr() -> Grounding:
    """MTTR on the CPU in fp32, with a tokenizer that knows few words."""
    network = build_empty_network()
    state = {row.key: row.make_tensor() for row in read_table("mttr") if row.kind != "keep"}
    network.load_state_dict({**make_index_tables(network), **state}, strict=True, assign=True)
    with TemporaryDirectory() as folder:
        tokenizer = read_tokenizer(*vocabulary.write_vocabulary(Path(folder)))
    return Grounding(DeviceNetwork.load_on(network, "cpu", "fp32"), tokenizer)


NETWORKS: dict[str, Callable[[], Any]] = {
    "bassl": build_bassl,
    "scrl": build_scrl,
    "clip_it": build_clip_it,
    "r2plus1d": build_r2plus1d,
    "mttr": build_mttr,
}
