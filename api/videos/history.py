"""Routes of the history of a video: its runs, the current run of each model, and their results."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Query, Record
from api.jobs.records import RunBaseRecord
from api.results.formats.text import build_result_record
from api.results.routes import ResultPage, build_probe_record, build_provenance
from shared.catalog import CATALOG
from shared.errors import InvalidRequest, NotFound
from shared.store.videos import history, videos
from shared.store.videos.history import RunHistoryEntry

bp = APIBlueprint("history", __name__, url_prefix="/v1/videos", tag="Runs")


class VideoRunsQuery(Query):
    """Which runs."""

    model: str | None = None
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


class RunUrls(Record):
    """Where to go on."""

    results: str
    diff: str


class VideoRunRecord(RunBaseRecord):
    """A run of a video, and its place among those of its model."""

    video_id: str
    current: bool = Field(description="Its results are the ones that are shown.")
    superseded_by: str | None = Field(description="The run that took its place once it was done.")
    urls: RunUrls


class VideoRunPage(Record):
    """Runs of a video, newest first."""

    items: list[VideoRunRecord]
    next_page_token: str | None


class VideoResultsQuery(Query):
    """Which results."""

    model: str | None = Field(None, description="Only of this model; absent: of each, in the order of the catalog.")
    run: str | None = Field(None, description="Of this finished run; absent: of the current one.")
    kind: str | None = Field(None, description="Only of this kind.")
    limit: int = Field(100, ge=1, le=1000)
    page_token: str | None = None


@bp.get("/<video_id>/runs")
@bp.input(VideoRunsQuery, location="query", arg_name="query")
@bp.output(VideoRunPage)
@bp.doc(responses=document_problems(InvalidRequest, NotFound))
def list_video_runs(video_id: str, query: VideoRunsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """The runs of a video, newest first: which is current, and which has superseded which."""
    _check_model_name(query.model)
    after = read_page_token("runs", query.page_token, (datetime, str))
    run_rows = history.list_runs(get_services().engine, video_id, limit=query.limit + 1, after=after, model=query.model)
    items, token, headers = paginate_items(
        "runs", run_rows, query.limit, lambda entry: (entry.run.created_at, entry.run.id)
    )
    return {"items": [_build_run_record(run_row) for run_row in items], "next_page_token": token}, headers


@bp.get("/<video_id>/results")
@bp.input(VideoResultsQuery, location="query", arg_name="query")
@bp.output(ResultPage)
@bp.doc(responses=document_problems(InvalidRequest, NotFound))
def list_video_results(video_id: str, query: VideoResultsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """Results of the current run of each model, or of the run that is named.

    While a model runs again, its old results stay the current ones. All pages of one list are of the same runs, even
    when others finish meanwhile.
    """
    _check_model_name(query.model)
    cursor = read_page_token("video_results", query.page_token, (str, int, str, int))
    run_ids = cursor[0].split(" ") if cursor else _select_run_ids(video_id, query)
    runs = history.get_finished_runs(get_services().engine, video_id, [run_id for run_id in run_ids if run_id])
    ids = [run.id for run in runs]
    result_rows = history.list_run_results(
        get_services().engine, video_id, ids, limit=query.limit + 1, after=cursor and cursor[1:], kind=query.kind
    )
    items, next_token, headers = paginate_items(
        "video_results", result_rows, query.limit, lambda result_row: (" ".join(ids), *result_row.cursor)
    )
    video = videos.get_video(get_services().engine, video_id)
    answer = {
        "items": [build_result_record(result_row) for result_row in items],
        "video": build_probe_record(runs, video),
        "provenance": [build_provenance(run, video) for run in runs],
        "next_page_token": next_token,
    }
    return answer, headers


def _select_run_ids(video_id: str, query: VideoResultsQuery) -> list[str]:
    """Select the run that is named, or the current ones."""
    if query.run is None:
        return history.get_current_run_ids(
            get_services().engine, video_id, [query.model] if query.model else list(CATALOG)
        )
    try:
        (run,) = history.get_finished_runs(get_services().engine, video_id, [query.run])
    except NotFound:
        videos.get_video(get_services().engine, video_id)
        raise bad_query("run", "unknown_run", "This video has no such finished run.") from None
    if query.model not in {None, run.model}:
        raise bad_query("run", "unknown_run", f"This is a run of {run.model}.")
    return [run.id]


def _check_model_name(name: str | None) -> None:
    if name is not None and name not in CATALOG:
        raise bad_query("model", "unknown_model", f"Models are: {', '.join(CATALOG)}.")


def _build_run_record(video_run: RunHistoryEntry) -> dict[str, Any]:
    run = video_run.run
    urls = {"results": f"{bp.url_prefix}/{run.video_id}/results?run={run.id}", "diff": f"/v1/runs/{run.id}/diff"}
    run_fields = {name: value for name, value in run.to_dict().items() if name in RunBaseRecord.model_fields}
    return run_fields | {
        "video_id": run.video_id,
        "current": video_run.current,
        "superseded_by": video_run.superseded_by,
        "urls": urls,
    }
