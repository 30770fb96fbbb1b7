"""Results in the form of the published pipelines: their own keys, so that their users change one line.

Which form a run has follows from the kinds of its results, so another model of scenes has the form of scenes unasked.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from api.errors import bad_query
from api.results.chosen import EVERY_ROW, run_of
from api.results.files import stored_path
from api.service.health import services
from shared.catalog import MENU
from shared.store import results, videos
from shared.store.likeness import embeddings
from shared.store.likeness.embeddings import Part
from shared.values import Embedding, Job, Run
from shared.values.embeddings import modelscope as of_embedding
from shared.values.scenes import Stamp, modelscope as of_scenes
from shared.values.summaries import modelscope as of_summary
from shared.values.tracks import modelscope as of_tracks, records

LARGEST_TRACKS = 32 * 2**20
"""Bytes of the file of tracks that are made into one document: some 50,000 masks, far beyond the ten seconds that the
published pipeline takes. The file itself has no limit."""


@dataclass(frozen=True, slots=True)
class Form:
    """How one published pipeline answers.

    Args:
        write: makes the answer out of a finished run; the float is another threshold, where the caller gave one.
        document: its JSON Schema.
    """

    write: Callable[[Job, Run, float | None], dict[str, Any]]
    document: dict[str, Any]


def published(job: Job, model: str | None, run_id: str | None, threshold: float | None) -> dict[str, Any]:
    """One run as the published pipeline writes it; InvalidRequest where there is none, or none with such a form."""
    models = [spec.name for spec in MENU.values() if set(spec.results) & set(FORMS)]
    run = run_of(job, model, run_id, models, "results in a published form")
    kind = next(kind for kind in MENU[run.model].results if kind in FORMS)
    if threshold is not None and kind != "scene":
        raise bad_query("threshold", "not_of_this_model", f"{run.model} has no threshold to group by.")
    return FORMS[kind].write(job, run, threshold)


def _scenes(job: Job, run: Run, threshold: float | None) -> dict[str, Any]:
    found = results.page(services().engine, job.id, run_id=run.id, kind="boundary", limit=EVERY_ROW)
    stamps, probabilities = [], []
    for span, score in ((one.result.range, one.result.score) for one in found):
        if span is None or score is None:
            raise ValueError(f"a boundary of {run.id} has no times or no probability")
        stamps.append(Stamp.of(span))
        probabilities.append(score)
    return of_scenes(stamps, probabilities, run.params["threshold"] if threshold is None else threshold)


def _tracks(job: Job, run: Run, _: float | None) -> dict[str, Any]:
    """The masks, as COCO RLE; the overlay film by its address."""
    files = {file.kind: file for run_id, _, file in results.artifacts(services().engine, job.id) if run_id == run.id}
    if "tracks" not in files:  # no frame of the film could be read
        return of_tracks((), len(run.params["queries"]), Fraction(0), None)
    if files["tracks"].size > LARGEST_TRACKS:
        detail = "The tracks of this run are too many for one document: read its artifact `tracks`, line by line."
        raise bad_query("format", "too_large", detail)
    fps = videos.get(services().engine, job.video_id).video.clock.fps
    overlay = f"/v1/artifacts/{files['overlay_film'].id}" if "overlay_film" in files else None
    with stored_path(files["tracks"].sha256).open("rb") as lines:
        return of_tracks(records(lines), len(run.params["queries"]), fps, overlay)


def _summary(job: Job, run: Run, _: float | None) -> dict[str, Any]:
    found = results.page(services().engine, job.id, run_id=run.id, kind="highlight", limit=EVERY_ROW)
    fps = videos.get(services().engine, job.video_id).video.clock.fps
    return of_summary((one.result for one in found), fps)


def _embedding(job: Job, run: Run, _: float | None) -> dict[str, Any]:
    """The raw vector of the film; Conflict where all its numbers are zero."""
    if run.params["per"] != "video":
        detail = "The published pipeline knows one embedding a film; this run has one a shot."
        raise bad_query("format", "one_a_shot", detail)
    asked = embeddings.of_video(services().engine, job.video_id, Part(), run_id=run.id)
    return of_embedding(Embedding(0, None, array("f", asked.vector)))


TEXTS = {"type": "array", "items": {"type": "string"}}
TWO_TEXTS = TEXTS | {"minItems": 2, "maxItems": 2}
SPAN = {"frame": TWO_TEXTS, "timestamps": TWO_TEXTS}
"""Frames, the last one inclusive, and time stamps `HH:MM:SS.mmm`."""


def _object(title: str, description: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    closed = {"type": "object", "additionalProperties": False, "required": [*properties], "properties": properties}
    return {"title": title, "description": description} | closed


SCENES_DOC = _object(
    "ModelScopeScenes",
    "Shots and scenes with the keys of the published BaSSL pipeline: frames (the last one inclusive) and time stamps "
    "`HH:MM:SS.mmm`, all as text.",
    shot_num={"type": "integer"},
    shot_meta_list={"type": "array", "items": {"type": "object", "properties": SPAN, "required": [*SPAN]}},
    scene_num={"type": "integer"},
    scene_meta_list={
        "type": "array",
        "items": {"type": "object", "properties": {"shot": TEXTS, **SPAN}, "required": ["shot", *SPAN]},
    },
)
TRACKS_DOC = _object(
    "ModelScopeTracks",
    "Masks with the keys of the published MTTR pipeline: for each query one a frame, as COCO RLE where that pipeline "
    "has arrays; time stamps `HH:MM:SS.mmm` since the first frame looked at; the address of the overlay film.",
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
    timestamps=TEXTS,
    output_video={"type": ["string", "null"]},
)
SUMMARY_DOC = _object(
    "ModelScopeSummary",
    "Highlights with the keys of the published CLIP-It pipeline: frames, both inclusive, and their time stamps "
    "`HH:MM:SS.mmm`.",
    output={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "frame": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                "timestamps": TWO_TEXTS,
            },
            "required": [*SPAN],
        },
    },
)
EMBEDDING_DOC = _object(
    "ModelScopeEmbedding",
    "The embedding of the film with the key of the published R(2+1)D pipeline, not normalised.",
    video_embedding={"type": "array", "items": {"type": "number"}},
)
FORMS = {
    "scene": Form(_scenes, SCENES_DOC),
    "highlight": Form(_summary, SUMMARY_DOC),
    "track": Form(_tracks, TRACKS_DOC),
    "embedding": Form(_embedding, EMBEDDING_DOC),
}
"""By a kind of result that a model yields."""
FORMS_DOC = [form.document for form in FORMS.values()]
