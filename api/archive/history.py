"""What was made of a video, run after run: the current run of each model, and those that it has superseded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.errors import Query, Record, bad_query, page, problems, read_token
from api.jobs.records import RunFacts
from api.results.lists import record as result_record
from api.results.routes import ResultPage, facts, provenance
from api.service.health import services
from shared.catalog import MENU
from shared.errors import InvalidRequest, NotFound
from shared.store import videos
from shared.store.archive import history
from shared.store.archive.history import Kept

bp = APIBlueprint("history", __name__, url_prefix="/v1/videos", tag="Runs")


class RunsQuery(Query):
    """Which runs."""

    model: str | None = None
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


class RunUrls(Record):
    """Where to go on."""

    results: str
    diff: str


class KeptRecord(RunFacts):
    """A run of a video, and its place among those of its model."""

    video_id: str
    current: bool = Field(description="Its results are the ones that are shown.")
    superseded_by: str | None = Field(description="The run that took its place once it was done.")
    urls: RunUrls


class KeptPage(Record):
    """Runs of a video, newest first."""

    items: list[KeptRecord]
    next_page_token: str | None


class ShownQuery(Query):
    """Which results."""

    model: str | None = Field(None, description="Only of this model; absent: of each, in the order of the menu.")
    run: str | None = Field(None, description="Of this finished run; absent: of the current one.")
    kind: str | None = Field(None, description="Only of this kind.")
    limit: int = Field(100, ge=1, le=1000)
    page_token: str | None = None


@bp.get("/<video_id>/runs")
@bp.input(RunsQuery, location="query", arg_name="query")
@bp.output(KeptPage)
@bp.doc(responses=problems(InvalidRequest, NotFound))
def runs_of(video_id: str, query: RunsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """The runs of a video, newest first: which is current, and which has superseded which."""
    _check_model(query.model)
    after = read_token("runs", query.page_token, (datetime, str))
    found = history.runs(services().engine, video_id, limit=query.limit + 1, after=after, model=query.model)
    items, token, headers = page("runs", found, query.limit, lambda kept: (kept.run.created_at, kept.run.id))
    return {"items": [_kept(kept) for kept in items], "next_page_token": token}, headers


@bp.get("/<video_id>/results")
@bp.input(ShownQuery, location="query", arg_name="query")
@bp.output(ResultPage)
@bp.doc(responses=problems(InvalidRequest, NotFound))
def results_of(video_id: str, query: ShownQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """What is known of a video: the results of the current run of each model, or of the run that is named.

    While a model runs again, its old results are the current ones. The pages of one list are of the same runs, whatever
    is done meanwhile.
    """
    _check_model(query.model)
    token = read_token("shown", query.page_token, (str, int, str, int))
    chosen = token[0].split(" ") if token else _chosen(video_id, query)
    runs = history.done(services().engine, video_id, [run_id for run_id in chosen if run_id])
    ids = [run.id for run in runs]
    found = history.results(
        services().engine, video_id, ids, limit=query.limit + 1, after=token and token[1:], kind=query.kind
    )
    items, following, headers = page("shown", found, query.limit, lambda one: (" ".join(ids), *one.cursor))
    video = videos.get(services().engine, video_id)
    answer = {
        "items": [result_record(one) for one in items],
        "video": facts(runs, video),
        "provenance": [provenance(run, video) for run in runs],
        "next_page_token": following,
    }
    return answer, headers


def _chosen(video_id: str, query: ShownQuery) -> list[str]:
    """The run that is named, or the current ones."""
    if query.run is None:
        return history.current(services().engine, video_id, [query.model] if query.model else list(MENU))
    try:
        (run,) = history.done(services().engine, video_id, [query.run])
    except NotFound:
        videos.get(services().engine, video_id)
        raise bad_query("run", "unknown_run", "This video has no such finished run.") from None
    if query.model not in {None, run.model}:
        raise bad_query("run", "unknown_run", f"This is a run of {run.model}.")
    return [run.id]


def _check_model(name: str | None) -> None:
    if name is not None and name not in MENU:
        raise bad_query("model", "unknown_model", f"Models are: {', '.join(MENU)}.")


def _kept(kept: Kept) -> dict[str, Any]:
    run = kept.run
    urls = {"results": f"{bp.url_prefix}/{run.video_id}/results?run={run.id}", "diff": f"/v1/runs/{run.id}/diff"}
    facts = {name: value for name, value in run.record().items() if name in RunFacts.model_fields}
    return facts | {
        "video_id": run.video_id,
        "current": kept.current,
        "superseded_by": kept.superseded_by,
        "urls": urls,
    }
