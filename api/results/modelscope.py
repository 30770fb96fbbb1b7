"""Results in the format of the published ModelScope pipelines, so that users of these change one line.

The format follows from the kinds of results of a run: another model with scenes has the format of scenes at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from api.http.context import get_services
from api.http.files import find_stored_path
from api.http.problems import bad_query
from api.results.selection import EVERY_ROW, select_run
from shared.catalog import CATALOG
from shared.store import results
from shared.store.search import embeddings
from shared.store.search.embeddings import VideoPart
from shared.store.videos import videos
from shared.values import Embedding, Job, Run
from shared.values.modelscope import (
    ModelscopeShot,
    format_modelscope_embedding as of_embedding,
    format_modelscope_scenes as of_scenes,
    format_modelscope_summary as of_summary,
    format_modelscope_tracks as of_tracks,
)
from shared.values.tracks import parse_track_lines

MAX_TRACKS_BYTES = 32 * 2**20
"""Bytes of the tracks file that are put into one document: some 50,000 masks, far more than the ten seconds of video
that the published pipeline accepts. The file itself has no limit."""


@dataclass(frozen=True, slots=True)
class ModelScopeFormat:
    """The format of one published pipeline.

    Args:
        write: builds the answer from a finished run; the float is the threshold of the request, where it has one.
        schema: its JSON Schema.
    """

    write: Callable[[Job, Run, float | None], dict[str, Any]]
    schema: dict[str, Any]


def render_modelscope(job: Job, model: str | None, run_id: str | None, threshold: float | None) -> dict[str, Any]:
    """Render one run as the published pipeline does; InvalidRequest where no run has such a format."""
    models = [spec.name for spec in CATALOG.values() if set(spec.results) & set(MODELSCOPE_FORMATS)]
    run = select_run(job, model, run_id, models, "results in a published form")
    kind = next(kind for kind in CATALOG[run.model].results if kind in MODELSCOPE_FORMATS)
    if threshold is not None and kind != "scene":
        raise bad_query("threshold", "not_of_this_model", f"{run.model} has no threshold to group by.")
    return MODELSCOPE_FORMATS[kind].write(job, run, threshold)


def _render_scenes(job: Job, run: Run, threshold: float | None) -> dict[str, Any]:
    boundaries = results.list_results(get_services().engine, job.id, run_id=run.id, kind="boundary", limit=EVERY_ROW)
    stamps, probabilities = [], []
    for span, score in ((boundary.result.range, boundary.result.score) for boundary in boundaries):
        if span is None or score is None:
            raise ValueError(f"a boundary of {run.id} has no times or no probability")
        stamps.append(ModelscopeShot.from_range(span))
        probabilities.append(score)
    return of_scenes(stamps, probabilities, run.params["threshold"] if threshold is None else threshold)


def _render_tracks(job: Job, run: Run, _: float | None) -> dict[str, Any]:
    """Render masks as COCO RLE, and the address of the overlay video."""
    files = {
        file.kind: file for run_id, _, file in results.list_artifacts(get_services().engine, job.id) if run_id == run.id
    }
    if "tracks" not in files:  # no frame of the video could be read
        return of_tracks((), len(run.params["queries"]), Fraction(0), None)
    if files["tracks"].size > MAX_TRACKS_BYTES:
        detail = "The tracks of this run are too many for one document: read its artifact `tracks`, line by line."
        raise bad_query("format", "too_large", detail)
    fps = videos.get_video(get_services().engine, job.video_id).facts.clock.fps
    overlay = f"/v1/artifacts/{files['overlay_video'].id}" if "overlay_video" in files else None
    with find_stored_path(files["tracks"].sha256).open("rb") as lines:
        return of_tracks(parse_track_lines(lines), len(run.params["queries"]), fps, overlay)


def _render_summary(job: Job, run: Run, _: float | None) -> dict[str, Any]:
    highlights = results.list_results(get_services().engine, job.id, run_id=run.id, kind="highlight", limit=EVERY_ROW)
    fps = videos.get_video(get_services().engine, job.video_id).facts.clock.fps
    return of_summary((highlight.result for highlight in highlights), fps)


def _render_embedding(job: Job, run: Run, _: float | None) -> dict[str, Any]:
    """Render the raw vector of the video; Conflict where all its numbers are zero."""
    if run.params["per"] != "video":
        detail = "The published pipeline knows one embedding a video; this run has one a shot."
        raise bad_query("format", "one_a_shot", detail)
    query_vector = embeddings.query_from_video(get_services().engine, job.video_id, VideoPart(), run_id=run.id)
    return of_embedding(Embedding(0, None, array("f", query_vector.vector)))


TEXT_LIST = {"type": "array", "items": {"type": "string"}}
TEXT_PAIR = TEXT_LIST | {"minItems": 2, "maxItems": 2}
SPAN_PROPERTIES = {"frame": TEXT_PAIR, "timestamps": TEXT_PAIR}
"""Frames, the last one inclusive, and time stamps `HH:MM:SS.mmm`."""


def _build_object_schema(title: str, description: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    object_schema = {
        "type": "object",
        "additionalProperties": False,
        "required": [*properties],
        "properties": properties,
    }
    return {"title": title, "description": description} | object_schema


SCENES_DOC = _build_object_schema(
    "ModelScopeScenes",
    "Shots and scenes with the keys of the published BaSSL pipeline: frames (the last one inclusive) and time stamps "
    "`HH:MM:SS.mmm`, all as text.",
    shot_num={"type": "integer"},
    shot_meta_list={
        "type": "array",
        "items": {"type": "object", "properties": SPAN_PROPERTIES, "required": [*SPAN_PROPERTIES]},
    },
    scene_num={"type": "integer"},
    scene_meta_list={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"shot": TEXT_LIST, **SPAN_PROPERTIES},
            "required": ["shot", *SPAN_PROPERTIES],
        },
    },
)
TRACKS_DOC = _build_object_schema(
    "ModelScopeTracks",
    "Masks with the keys of the published MTTR pipeline: for each query one a frame, as COCO RLE where that pipeline "
    "has arrays; time stamps `HH:MM:SS.mmm` since the first frame of the range; the address of the overlay video.",
    masks={
        "type": "array",
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "size": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                    "counts": {"type": "string"},
                },
                "required": ["size", "counts"],
            },
        },
    },
    timestamps=TEXT_LIST,
    output_video={"type": ["string", "null"]},
)
SUMMARY_DOC = _build_object_schema(
    "ModelScopeSummary",
    "Highlights with the keys of the published CLIP-It pipeline: frames, both inclusive, and their time stamps "
    "`HH:MM:SS.mmm`.",
    output={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "frame": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                "timestamps": TEXT_PAIR,
            },
            "required": [*SPAN_PROPERTIES],
        },
    },
)
EMBEDDING_DOC = _build_object_schema(
    "ModelScopeEmbedding",
    "The embedding of the video with the key of the published R(2+1)D pipeline, not normalised.",
    video_embedding={"type": "array", "items": {"type": "number"}},
)
MODELSCOPE_FORMATS = {
    "scene": ModelScopeFormat(_render_scenes, SCENES_DOC),
    "highlight": ModelScopeFormat(_render_summary, SUMMARY_DOC),
    "track": ModelScopeFormat(_render_tracks, TRACKS_DOC),
    "embedding": ModelScopeFormat(_render_embedding, EMBEDDING_DOC),
}
"""Formats by kind of result."""
MODELSCOPE_SCHEMAS = [form.schema for form in MODELSCOPE_FORMATS.values()]
