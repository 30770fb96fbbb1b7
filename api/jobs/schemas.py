"""Bodies and queries of requests for jobs, and their analyses checked against the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from api.http.problems import bad_query
from api.http.schemas import Body, Query
from shared.catalog import ModelSpec, Params, get_model_spec
from shared.errors import FieldError, InvalidRequest
from shared.store.jobs.planner import Analysis
from shared.values import VideoFacts, parse_labels

RANGE_PARAMS = ("start_s", "end_s")
"""Parameters of models that can process a part of the video."""

Label = Annotated[str, StringConstraints(max_length=256)]
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^:]+$")]


class RangeBody(Body):
    """A part of the video, in seconds since its first frame; the end is exclusive."""

    start_s: float = Field(0.0, ge=0)
    end_s: float | None = Field(None, gt=0, description="Absent: the end of the video.")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError("end_s must come after start_s")
        return self


class AnalysisBody(Body):
    """One requested model."""

    model: str = Field(description="A name in the catalog.")
    params: dict[str, Any] = Field(default={}, description="Parameters of that model; defaults where absent.")
    range: RangeBody | None = Field(
        None,
        description="The part of the video to look at, for models with the parameters `start_s` and `end_s`: another "
        "spelling of these two.",
    )


class JobBody(Body):
    """A request for a job: a video and the models to run."""

    video_id: str
    analyses: list[AnalysisBody] = Field(min_length=1, max_length=32)
    priority: Literal["low", "normal", "high"] = "normal"
    external_id: str | None = Field(None, min_length=1, max_length=256, description="Your own name for it.")
    labels: dict[LabelName, Label] = Field(default={}, max_length=64)


class CreateHeaders(BaseModel):
    """Headers of a request."""

    idempotency_key: str | None = Field(
        None, min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$", description="Same key and body: the same job."
    )


class CreateQuery(Query):
    """How to process a request."""

    validate_only: bool = Field(False, description="Check everything and queue nothing (200).")


class HasAnalyses(Protocol):
    """A request that names models."""

    @property
    def analyses(self) -> Sequence[AnalysisBody]:
        """In the order of the request."""


def parse_analyses(body: HasAnalyses) -> tuple[Analysis, ...]:
    """Check every analysis against the catalog; InvalidRequest names all faults at once."""
    analyses, faults = [], []
    for index, analysis_body in enumerate(body.analyses):
        try:
            spec = get_model_spec(analysis_body.model, f"/analyses/{index}/model")
            params = analysis_body.params | _read_range(spec, analysis_body, f"/analyses/{index}/range")
            analyses.append(Analysis(spec.name, spec.read_params(params, f"/analyses/{index}/params")))
        except InvalidRequest as error:
            faults.append(error)
    if faults:
        detail = faults[0].detail if len(faults) == 1 else "Several analyses are not valid; see `errors`."
        raise InvalidRequest(detail, errors=tuple(fault for error in faults for fault in error.errors))
    return tuple(analyses)


def _read_range(spec: ModelSpec, analysis_body: AnalysisBody, pointer: str) -> dict[str, float | None]:
    """Read the range as parameters; InvalidRequest where the model has none, or where `params` has them too."""
    if analysis_body.range is None:
        return {}
    if not spec.params.model_fields.keys() >= set(RANGE_PARAMS):
        raise InvalidRequest.at(pointer, "no_range", f"{spec.name} processes the whole video: it takes no range.")
    if analysis_body.params.keys() & set(RANGE_PARAMS):
        raise InvalidRequest.at(pointer, "given_twice", "The range is given twice: in `range` and in `params`.")
    return analysis_body.range.model_dump()


def check_ranges_in_video(body: JobBody, analyses: Sequence[Analysis], video: VideoFacts) -> None:
    """InvalidRequest for a range that begins or ends beyond the end of the video.

    The fault points to the spelling that the request used: `range`, or the two parameters in `params`.
    """
    duration_s = float(video.duration)
    detail = f"The video lasts {duration_s:.6f} s."
    faults = [
        FieldError(
            f"/analyses/{index}/{'params' if analysis_body.range is None else 'range'}/{name}", "beyond_the_end", detail
        )
        for index, (analysis_body, analysis) in enumerate(zip(body.analyses, analyses, strict=True))
        for name in _find_late_ends(analysis.params, duration_s)
    ]
    if faults:
        raise InvalidRequest(f"A range lies beyond the end of the video. {detail}", errors=tuple(faults))


def _find_late_ends(params: Params, duration_s: float) -> list[str]:
    start, end = (getattr(params, name, None) for name in RANGE_PARAMS)
    late = {"start_s": start is not None and start >= duration_s, "end_s": end is not None and end > duration_s}
    return [name for name in RANGE_PARAMS if late[name]]


def has_range(analyses: Sequence[Analysis]) -> bool:
    """Whether one of the analyses is limited to a part of the video."""
    return any(
        getattr(analysis.params, "start_s", 0) or getattr(analysis.params, "end_s", None) for analysis in analyses
    )


def read_label_query(pairs: list[str]) -> dict[str, str]:
    """Read the labels of a query, written `name:value`; InvalidRequest."""
    try:
        return parse_labels(pairs)
    except ValueError:
        raise bad_query("label", "bad_label", "A label is written name:value.") from None
