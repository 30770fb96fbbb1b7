"""Routes of differences: between two runs of a video, and summed over a batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.batches.change_sums import load_change_sums, sum_batch_changes
from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Query, Record
from api.results.routes import FingerprintRecord, MomentRecord
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.store.batches import batches
from shared.store.videos import diff as videos_diff, videos
from shared.store.videos.diff import DiffOutcome, KindDiff, VideoChange
from shared.values import Result, Run, format_timestamp
from shared.values.diff import ChangeKind, DiffSummary, Pairing

bp = APIBlueprint("changes", __name__, url_prefix="/v1", tag="Runs")


class DiffQuery(Query):
    """Which runs to compare."""

    base_run_id: str | None = Field(None, description="The older run; absent: the one that this run has superseded.")
    kind: str | None = Field(None, description="Of results; absent: each that lies in time one after the other.")


class BatchDiffQuery(Query):
    """Which videos to list."""

    limit: int = Field(50, ge=0, le=500)
    page_token: str | None = None


class ComparedRunRecord(Record):
    """One of two runs."""

    run_id: str
    model: str
    params: dict[str, Any]
    weights: FingerprintRecord | None
    finished_at: datetime | None


class IntervalRecord(Record):
    """A result on one side."""

    seq: int
    start: MomentRecord
    end: MomentRecord = Field(description="Exclusive.")
    score: float | None


class ShiftRecord(Record):
    """By how many frames; later is positive."""

    start_frames: int
    end_frames: int


class PairingRecord(Record):
    """Results that belong together: they share half of the shorter one or more."""

    change: ChangeKind
    before: list[IntervalRecord]
    after: list[IntervalRecord]
    moved_by: ShiftRecord | None


class ShiftStatsRecord(Record):
    """Frames by which the moved ones have moved: of each the larger of start and end, unsigned."""

    median: float
    largest: int


class ChangeCountsRecord(Record):
    """What changed, in numbers."""

    before: int
    after: int
    changes: dict[ChangeKind, int]
    moved_frames: ShiftStatsRecord | None = Field(description="Null where none has moved.")


class KindDiffRecord(ChangeCountsRecord):
    """Results of one kind in two runs."""

    kind: str
    pairings: list[PairingRecord]


class DiffRecord(Record):
    """What changed between two runs of a video."""

    video_id: str
    run: ComparedRunRecord
    base_run: ComparedRunRecord
    kinds: list[KindDiffRecord]


class VideoChangeRecord(Record):
    """What a batch has done to one video by one of its analyses."""

    position: int
    video_id: str
    name: str
    model: str | None = Field(description="Null while the video has no job.")
    run_id: str | None
    base_run_id: str | None
    outcome: DiffOutcome
    kinds: dict[str, ChangeCountsRecord]


class BatchDiffRecord(Record):
    """What a batch has changed: the sums of all its videos, and some videos one by one."""

    batch_id: str
    complete: bool = Field(description="False: the time was over. The next request comes further.")
    videos: dict[DiffOutcome, int] = Field(
        description="Analyses of videos. `compared`: with the run before; `unchanged`: that run was shared; `first`: "
        "there was none; `forgotten`: it was deleted."
    )
    kinds: dict[str, ChangeCountsRecord] = Field(description="By kind of result, over all that are compared.")
    most_changed: list[VideoChangeRecord] = Field(
        description="Those with the most results that were not kept; 20 at most."
    )
    items: list[VideoChangeRecord]
    next_page_token: str | None


@bp.get("/runs/<run_id>/diff")
@bp.input(DiffQuery, location="query", arg_name="query")
@bp.output(DiffRecord)
@bp.doc(responses=document_problems(InvalidRequest, NotFound, Conflict))
def diff_runs(run_id: str, query: DiffQuery) -> dict[str, Any]:
    """Compare two finished runs of a video: shots, scenes or highlights that were kept, moved, merged, split.

    Results of one kind must not overlap. 409 unless both runs are done.
    """
    try:
        diff = videos_diff.diff_runs(get_services().engine, run_id, query.base_run_id, query.kind)
    except InvalidRequest as error:
        (fault,) = error.errors
        raise bad_query(fault.pointer[1:], fault.code, fault.detail) from None
    return {
        "video_id": diff.run.video_id,
        "run": _build_run_side(diff.run),
        "base_run": _build_run_side(diff.base_run),
        "kinds": [_build_kind_diff(compared) for compared in diff.kinds],
    }


@bp.get("/batches/<batch_id>/diff")
@bp.input(BatchDiffQuery, location="query", arg_name="query")
@bp.output(BatchDiffRecord)
@bp.doc(responses=document_problems(InvalidRequest, NotFound))
def diff_batch(batch_id: str, query: BatchDiffQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """What a batch has changed, in sum and video by video: its runs against those that were current before.

    A large batch is compared in pages; while `complete` is false, ask again for the rest.
    """
    after = read_page_token("changes", query.page_token, (int,))
    batch_changes = sum_batch_changes(batch_id)
    items, token, headers = _list_video_changes(batch_id, after[0] if after else -1, query.limit)
    most_changed = _build_video_changes([(change, sums) for _, change, sums in batch_changes.most_changed])
    return {
        "batch_id": batch_id,
        **batch_changes.to_record(),
        "most_changed": most_changed,
        "items": items,
        "next_page_token": token,
    }, headers


def _list_video_changes(
    batch_id: str, after: int, limit: int
) -> tuple[list[dict[str, Any]], str | None, dict[str, str]]:
    """List the changes of some videos; none where `limit` is 0."""
    if not limit:
        batches.get_batch(get_services().engine, batch_id)  # NotFound
        return [], None, {}
    change_rows = videos_diff.list_batch_changes(get_services().engine, batch_id, limit=limit + 1, after=after)
    videos_page, token, headers = paginate_items(
        "changes", change_rows, limit, lambda video_changes: (video_changes[0].position,)
    )
    video_changes_list = [change for video_changes in videos_page for change in video_changes]
    return (
        _build_video_changes(list(zip(video_changes_list, load_change_sums(video_changes_list), strict=True))),
        token,
        headers,
    )


def _build_video_changes(
    changes_with_sums: Sequence[tuple[VideoChange, dict[str, DiffSummary]]],
) -> list[dict[str, Any]]:
    """Build the records of changes, with names and numbers."""
    videos_by_id = videos.get_videos(get_services().engine, {change.video_id for change, _ in changes_with_sums})
    names = {video_id: video.name for video_id, video in videos_by_id.items()}
    return [_build_video_change(change, sums, names) for change, sums in changes_with_sums]


def _build_video_change(change: VideoChange, sums: dict[str, DiffSummary], names: dict[str, str]) -> dict[str, Any]:
    fields = {
        name: getattr(change, name) for name in ("position", "video_id", "model", "run_id", "base_run_id", "outcome")
    }
    kinds = {kind: kind_sums.to_dict() for kind, kind_sums in sums.items()}
    return fields | {"name": names.get(change.video_id, ""), "kinds": kinds}


def _build_run_side(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.id,
        "model": run.model,
        "params": run.params,
        "weights": {"fingerprint": run.weights} if run.weights else None,
        "finished_at": format_timestamp(run.finished_at),
    }


def _build_kind_diff(compared: KindDiff) -> dict[str, Any]:
    pairings = [_build_pairing(pairing, compared) for pairing in compared.pairings]
    return {"kind": compared.kind, **compared.summary.to_dict(), "pairings": pairings}


def _build_pairing(pairing: Pairing, compared: KindDiff) -> dict[str, Any]:
    return pairing.to_dict() | {
        "before": [_build_interval(compared.before[at]) for at in pairing.before],
        "after": [_build_interval(compared.after[at]) for at in pairing.after],
    }


def _build_interval(result: Result) -> dict[str, Any]:
    record = result.to_dict()
    return {name: record[name] for name in IntervalRecord.model_fields}
