"""Route of results: pages of JSON, lists, captions, edits, or the form of the published pipelines."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from apiflask import APIBlueprint
from flask import Response, jsonify
from pydantic import Field

from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Query, Record
from api.results.exports import MEDIA_TYPES, export_list, export_run
from api.results.formats.text import build_result_record
from api.results.modelscope import MODELSCOPE_SCHEMAS, render_modelscope
from api.results.selection import check_run_filter
from shared.errors import NotFound
from shared.store import results
from shared.store.jobs import jobs
from shared.store.videos import videos
from shared.values import Job, Run, StoredVideo

bp = APIBlueprint("results", __name__, url_prefix="/v1", tag="Results and artifacts")

Format = Literal["json", "jsonl", "csv", "vtt", "srt", "edl", "otio", "fcpxml", "ffmetadata", "modelscope"]
RESULTS_DOC: dict[int | str, Any] = {
    200: {
        "description": "A page of results; with another `format` than json everything in one document.",
        "content": {
            "application/json": {
                "schema": {"oneOf": [{"$ref": "#/components/schemas/ResultPage"}, *MODELSCOPE_SCHEMAS]}
            },
            **{media_type: {"schema": {"type": "string"}} for media_type in MEDIA_TYPES},
        },
    }
}


class MomentRecord(Record):
    """One instant of a video."""

    frame: int
    seconds: float = Field(description="Since the first frame.")
    pts: int
    timecode: str


class ResultRecord(Record):
    """One result of a run."""

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
        "scenes, shots or segments of one finished run as captions, chapters or edits, by the video's own clock; edl "
        "and fcpxml count in frames of the video's nominal rate, or of the next one that has timecodes. modelscope: "
        "one finished run in the form of the published pipeline.",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="modelscope: groups the shots by another threshold than the run's, at once."
    )


@bp.get("/jobs/<job_id>/results")
@bp.input(ResultsQuery, location="query", arg_name="query")
@bp.output(ResultPage)
@bp.doc(responses=document_problems(NotFound, extra=RESULTS_DOC))
def list_job_results(job_id: str, query: ResultsQuery) -> tuple[dict[str, Any], dict[str, str]] | Response:
    """Results of a job; those of a finished run can be read while other runs go on."""
    job = jobs.get_job(get_services().engine, job_id)
    check_run_filter(job, query.model, query.run_id)
    _check_format_parameters(query)
    if query.format == "json":
        return _build_result_page(job, query)
    if query.format == "modelscope":
        return jsonify(render_modelscope(job, query.model, query.run_id, query.threshold))
    if query.format in {"jsonl", "csv"}:
        return export_list(job, query.format, model=query.model, run_id=query.run_id, kind=query.kind)
    return export_run(job, query.format, model=query.model, run_id=query.run_id, kind=query.kind)


def _build_result_page(job: Job, query: ResultsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    engine = get_services().engine
    after = read_page_token("results", query.page_token, (int, str, int))
    result_rows = results.list_results(
        engine, job.id, model=query.model, kind=query.kind, run_id=query.run_id, limit=query.limit + 1, after=after
    )
    items, token, headers = paginate_items("results", result_rows, query.limit, lambda one: one.cursor)
    video = videos.get_video(engine, job.video_id)
    answer = {
        "items": [build_result_record(row) for row in items],
        "video": build_probe_record(job.runs, video),
        "provenance": [build_provenance(run, video) for run in job.runs],
        "next_page_token": token,
    }
    return answer, headers


def _check_format_parameters(query: ResultsQuery) -> None:
    """Refuse parameters of another format: ignored, they would look as if they had an effect."""
    unsupported = {"json": {"threshold"}, "modelscope": {"kind", "limit", "page_token"}}
    for name in sorted(unsupported.get(query.format, {"limit", "page_token", "threshold"}) & query.model_fields_set):
        raise bad_query(name, "not_in_this_format", f"{name} has no meaning with format={query.format}.")


def build_probe_record(runs: Iterable[Run], video: StoredVideo) -> dict[str, Any]:
    """Build the probe of a video, with the decode failures that its runs have met."""
    decode_failures = [run.decode_failures for run in runs if run.decode_failures is not None]
    return video.facts.with_decode_failures(max(decode_failures, default=video.facts.decode_failures)).to_dict()


def build_provenance(run: Run, video: StoredVideo) -> dict[str, Any]:
    """Build the provenance of a run: model, weights, parameters, input."""
    fields = run.to_dict() | {"run_id": run.id, "input_sha256": video.sha256}
    return {name: fields[name] for name in ProvenanceRecord.model_fields}
