"""Catalog entries for scenes: two models with one kind of answer."""

from __future__ import annotations

from pydantic import Field

from shared.catalog.spec import ModelSpec, PreciseParams, WeightsSpec


class SceneParams(PreciseParams):
    """Parameters that the models of scene boundaries share."""

    split_scenes: bool = Field(False, description="Also yield each scene as an mp4 clip.")


class BasslParams(SceneParams):
    """Parameters of `bassl`."""

    threshold: float = Field(
        0.8, gt=0, lt=1, description="Probability above which a shot is the last of its scene; regrouping is instant."
    )


class ScrlParams(SceneParams):
    """Parameters of `scrl`."""

    threshold: float = Field(
        0.5, gt=0, lt=1, description="Probability above which a shot is the last of its scene; regrouping is instant."
    )


BASSL = ModelSpec(
    name="bassl",
    title="Scenes (BaSSL)",
    summary="Where the story turns: the probability that a scene ends with each shot, and the scenes.",
    paper="Mun et al., Boundary-aware Self-supervised Learning for Video Scene Segmentation (ACCV 2022), "
    "arXiv:2201.05277",
    params=BasslParams,
    needs=("shots",),
    results=("boundary", "scene"),
    artifacts=("features", "probabilities", "scene_clip"),
    weights=WeightsSpec(
        name="bassl.safetensors",
        sha256=None,
        size=None,
        licence="Apache-2.0",
        origin="ModelScope damo/cv_resnet50-bert_video-scene-segmentation_movienet",
        how="sceneworks-worker weights pull bassl",
    ),
    postprocess_params=("threshold", "split_scenes"),
)

SCRL = ModelSpec(
    name="scrl",
    title="Scenes (SCRL)",
    summary="Where the story turns, by another network: the probability that a scene ends with each shot, the scenes.",
    paper="Wu et al., Scene Consistency Representation Learning for Video Scene Segmentation (CVPR 2022), "
    "arXiv:2205.05487",
    params=ScrlParams,
    needs=("shots",),
    results=("boundary", "scene"),
    artifacts=("features", "probabilities", "scene_clip"),
    weights=WeightsSpec(
        name="scrl.safetensors",
        sha256=None,
        size=None,
        licence="NOASSERTION",
        origin="the authors' drive, linked from TencentYoutuResearch/SceneSegmentation-SCRL",
        how="sceneworks-worker weights import scrl checkpoint.pth.tar model_best.pth.tar",
    ),
    postprocess_params=("threshold", "split_scenes"),
)
