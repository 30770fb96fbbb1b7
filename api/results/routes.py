"""What runs found: as pages of JSON, as lists, as edits, or in the form of the published pipelines."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from flask import Response, jsonify
from pydantic import Field

from api.errors import Query, Record, bad_query, page, problems, read_token
from api.results.chosen import check_names
from api.results.exports import MEDIA_TYPES, exported, listed
from api.results.files import bp
from api.results.lists import record
from api.results.published import FORMS_DOC, published
from api.service.health import services
from shared.errors import NotFound
from shared.store import jobs, results, videos
from shared.values import Job, Run, StoredVideo

Format = Literal["json", "jsonl", "csv", "vtt", "srt", "edl", "otio", "fcpxml", "ffmetadata", "modelscope"]
RESULTS_DOC: dict[int | str, Any] = {
    200: {
        "description": "A page of results; with another `format` than json everything in one document.",
        "content": {
            "application/json": {"schema": {"oneOf": [{"$ref": "#/components/schemas/ResultPage"}, *FORMS_DOC]}},
            **{media_type: {"schema": {"type": "string"}} for media_type in MEDIA_TYPES},
        },
    }
}


class MomentRecord(Record):
    """One instant of a film."""

    frame: int
    seconds: float = Field(description="Since the first frame.")
    pts: int
    timecode: str


class ResultRecord(Record):
    """One thing that a run found."""

    kind: str
    seq: int
    start: MomentRecord | None
    end: MomentRecord | None = Field(description="Exclusive.")
    score: float | None
    data: dict[str, Any]
    run_id: str
    model: str


class FingerprintRecord(Record):
    """Which weights."""

    fingerprint: str


class ProvenanceRecord(Record):
    """Where the results of one run come from."""

    run_id: str
    model: str
    state: str
    weights: FingerprintRecord | None
    params: dict[str, Any]
    input_sha256: str
    device: str | None
    precision: str | None
    version: str | None
    decode_failures: int | None
    finished_at: datetime | None


class ResultPage(Record):
    """Results in order of run, kind and seq. A run that found nothing is `done` in `provenance` and has no items."""

    items: list[ResultRecord]
    video: dict[str, Any] = Field(description="The probe of the video.")
    provenance: list[ProvenanceRecord]
    next_page_token: str | None


class ResultsQuery(Query):
    """Which results, and in which form."""

    model: str | None = Field(None, description="Only of this model's runs.")
    run_id: str | None = Field(None, description="Only of this run.")
    kind: str | None = Field(None, description="Only of this kind, such as `shot`.")
    limit: int = Field(500, ge=1, le=5000)
    page_token: str | None = None
    format: Format = Field(
        "json",
        description="json: a page. jsonl, csv: every result. vtt, srt, ffmetadata, edl, otio, fcpxml: the highlights, "
        "scenes, shots or segments of one finished run as captions, chapters or edits, by the film's own clock; edl "
        "and fcpxml count in frames of the film's nominal rate, or of the next one that has timecodes. modelscope: one "
        "finished run in the form of the published pipeline.",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="modelscope: groups the shots by another threshold than the run's, at once."
    )


@bp.get("/jobs/<job_id>/results")
@bp.input(ResultsQuery, location="query", arg_name="query")
@bp.output(ResultPage)
@bp.doc(responses=problems(NotFound, also=RESULTS_DOC))
def results_of(job_id: str, query: ResultsQuery) -> tuple[dict[str, Any], dict[str, str]] | Response:
    """Results of a job; those of a finished run can be read while other runs go on."""
    job = jobs.get(services().engine, job_id)
    check_names(job, query.model, query.run_id)
    _check_format(query)
    if query.format == "json":
        return _page(job, query)
    if query.format == "modelscope":
        return jsonify(published(job, query.model, query.run_id, query.threshold))
    if query.format in {"jsonl", "csv"}:
        return listed(job, query.format, model=query.model, run_id=query.run_id, kind=query.kind)
    return exported(job, query.format, model=query.model, run_id=query.run_id, kind=query.kind)


def _page(job: Job, query: ResultsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    engine = services().engine
    after = read_token("results", query.page_token, (int, str, int))
    found = results.page(
        engine, job.id, model=query.model, kind=query.kind, run_id=query.run_id, limit=query.limit + 1, after=after
    )
    items, token, headers = page("results", found, query.limit, lambda one: one.cursor)
    video = videos.get(engine, job.video_id)
    answer = {
        "items": [record(one) for one in items],
        "video": facts(job.runs, video),
        "provenance": [provenance(run, video) for run in job.runs],
        "next_page_token": token,
    }
    return answer, headers


def _check_format(query: ResultsQuery) -> None:
    """A parameter of another format would change nothing: it is refused, so that nobody believes it did."""
    strange = {"json": {"threshold"}, "modelscope": {"kind", "limit", "page_token"}}
    for name in sorted(strange.get(query.format, {"limit", "page_token", "threshold"}) & query.model_fields_set):
        raise bad_query(name, "not_in_this_format", f"{name} has no meaning with format={query.format}.")


def facts(runs: Iterable[Run], video: StoredVideo) -> dict[str, Any]:
    """The probe, with the failures that were met when the film was read."""
    met = [run.decode_failures for run in runs if run.decode_failures is not None]
    return video.video.with_failures(max(met, default=video.video.decode_failures)).record()


def provenance(run: Run, video: StoredVideo) -> dict[str, Any]:
    """Where the results of a run come from, as JSON."""
    whole = run.record() | {"run_id": run.id, "input_sha256": video.sha256}
    return {name: whole[name] for name in ProvenanceRecord.model_fields}
