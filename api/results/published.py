"""Results in the form of the published pipelines: their own keys, so that their users change one line."""

from __future__ import annotations

from typing import Any

from api.errors import bad_query
from api.health import services
from shared.catalog import MENU
from shared.store import results
from shared.values import Job, Run, RunState
from shared.values.scenes import Stamp, modelscope

EVERY_ROW = 2**31 - 1
TWO_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
SPAN = {"frame": TWO_TEXTS, "timestamps": TWO_TEXTS}
PUBLISHED: dict[str, Any] = {
    "title": "ModelScope",
    "description": "Shots and scenes with the keys of the published BaSSL pipeline: frames (the last one inclusive) "
    "and time stamps `HH:MM:SS.mmm`, all as text.",
    "type": "object",
    "additionalProperties": False,
    "required": ["shot_num", "shot_meta_list", "scene_num", "scene_meta_list"],
    "properties": {
        "shot_num": {"type": "integer"},
        "shot_meta_list": {"type": "array", "items": {"type": "object", "properties": SPAN, "required": [*SPAN]}},
        "scene_num": {"type": "integer"},
        "scene_meta_list": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"shot": {"type": "array", "items": {"type": "string"}}, **SPAN},
                "required": ["shot", *SPAN],
            },
        },
    },
}


def published(job: Job, model: str | None, threshold: float | None) -> dict[str, Any]:
    """The scenes of one run as the published pipeline writes them."""
    run = _scene_run(job, model)
    found = results.page(services().engine, job.id, run_id=run.id, kind="boundary", limit=EVERY_ROW)
    stamps, probabilities = [], []
    for span, score in ((one.result.range, one.result.score) for one in found):
        if span is None or score is None:
            raise ValueError(f"a boundary of {run.id} has no times or no probability")
        stamps.append(Stamp.of(span))
        probabilities.append(score)
    return modelscope(stamps, probabilities, run.params["threshold"] if threshold is None else threshold)


def _scene_run(job: Job, model: str | None) -> Run:
    """The first finished run of that model, which may be left open where the job has but one that finds scenes."""
    names = list(dict.fromkeys(run.model for run in job.runs if _finds_scenes(run.model)))
    if model is None and len(names) > 1:
        raise bad_query("model", "ambiguous_model", f"Several models of this job find scenes: {', '.join(names)}.")
    if model is not None and not _finds_scenes(model):
        raise bad_query("model", "no_scenes", f"{model} finds no scenes; format=modelscope is for models that do.")
    run = next((run for run in scene_runs(job) if model in {None, run.model}), None)
    if run is None:
        raise bad_query("format", "no_scenes", "This job has no finished run that found scenes.")
    return run


def scene_runs(job: Job) -> list[Run]:
    """The job's finished runs that found scenes."""
    return [run for run in job.runs if run.state is RunState.DONE and _finds_scenes(run.model)]


def _finds_scenes(model: str) -> bool:
    return model in MENU and "scene" in MENU[model].results
