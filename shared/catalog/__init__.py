"""The catalog: every model with its parameters, needs and results. A model's name is also that of its queue."""

from __future__ import annotations

from shared.catalog.clip_it import CLIP_IT, ClipItParams
from shared.catalog.mttr import MTTR, MttrParams
from shared.catalog.r2plus1d import R2PLUS1D, R2plus1dParams
from shared.catalog.scenes import BASSL, SCRL, BasslParams, SceneParams, ScrlParams
from shared.catalog.shots import SHOTS, ShotsParams
from shared.catalog.spec import ModelSpec, Params, PreciseParams, WeightsSpec
from shared.errors import FieldError, InvalidRequest

__all__ = [
    "BASSL",
    "CATALOG",
    "CLIP_IT",
    "MTTR",
    "R2PLUS1D",
    "SCRL",
    "SHOTS",
    "BasslParams",
    "ClipItParams",
    "ModelSpec",
    "MttrParams",
    "Params",
    "PreciseParams",
    "R2plus1dParams",
    "SceneParams",
    "ScrlParams",
    "ShotsParams",
    "WeightsSpec",
    "get_model_spec",
    "parse_model_names",
]

CATALOG: dict[str, ModelSpec] = {spec.name: spec for spec in (SHOTS, BASSL, SCRL, CLIP_IT, MTTR, R2PLUS1D)}


def get_model_spec(name: str, pointer: str = "/model") -> ModelSpec:
    """The catalog entry of that name; InvalidRequest (`unknown_model`) names those there are."""
    if name not in CATALOG:
        known = ", ".join(CATALOG)
        raise InvalidRequest(
            f"There is no model of that name. Models: {known}.",
            errors=(FieldError(pointer, "unknown_model", f"one of: {known}"),),
        )
    return CATALOG[name]


def parse_model_names(models: str) -> tuple[str, ...]:
    """Names in SCENEWORKS_MODELS: `*` for the whole catalog; InvalidRequest for a name that is not on it."""
    if models.strip() == "*":
        return tuple(CATALOG)
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise InvalidRequest("SCENEWORKS_MODELS names no model.")
    return tuple(get_model_spec(name, "/SCENEWORKS_MODELS").name for name in names)
