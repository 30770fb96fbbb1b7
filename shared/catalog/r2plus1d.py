"""Catalog entry for embeddings of videos and shots."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.catalog.spec import ModelSpec, PreciseParams, WeightsSpec


class R2plus1dParams(PreciseParams):
    """Parameters of `r2plus1d`."""

    per: Literal["video", "shot"] = Field(
        "video", description="One embedding of the whole video, or one of each shot (then `shots` is run first)."
    )
    clips: int = Field(
        10, ge=1, le=30, description="Clips of 16 frames, evenly spread, whose mean the embedding is; published: 10."
    )


R2PLUS1D = ModelSpec(
    name="r2plus1d",
    title="Likeness (R(2+1)D)",
    summary="What looks and moves alike: an embedding of the video or of each shot, to search with.",
    paper="Huang et al., Self-supervised Video Representation Learning by Context and Motion Decoupling (CVPR 2021), "
    "arXiv:2104.00862",
    params=R2plus1dParams,
    needs=("shots",),
    results=("embedding",),
    artifacts=("embeddings",),
    weights=WeightsSpec(
        name="r2plus1d.safetensors",
        sha256=None,
        size=None,
        licence="Apache-2.0",
        origin="ModelScope damo/cv_r2p1d_video_embedding",
        how="sceneworks-worker weights pull r2plus1d",
    ),
    optional_when=(("per", "video"),),
)
