"""Rows -> values: the only place that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.errors import Problem
from shared.tables import ArtifactRow, JobRow, JobRunRow, ResultRow, RunRow, VideoRow
from shared.values import Artifact, Clock, Job, Result, Run, RunState, StoredVideo, TimeRange, VideoFacts
from shared.values.jobs import PRIORITY_NAMES
from shared.values.runs import StageRecord


def to_stored_video(row: VideoRow) -> StoredVideo:
    """A video with its facts."""
    return StoredVideo(
        id=row.id,
        sha256=row.sha256,
        size=row.size,
        name=row.name,
        media_type=row.media_type,
        facts=VideoFacts.from_dict(row.probe),
        created_at=row.created_at,
        stored=row.stored,
    )


def to_run(row: RunRow, link: JobRunRow | None = None) -> Run:
    """A run, as the job of `link` refers to it."""
    return Run(
        id=row.id,
        video_id=row.video_id,
        model=row.model,
        params=row.params,
        weights=row.weights,
        state=RunState(row.state),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        fraction=row.fraction,
        eta_s=row.eta_s,
        stages=cast("tuple[StageRecord, ...]", tuple(row.stages)),
        device=row.device,
        precision=row.precision,
        version=row.version,
        decode_failures=row.decode_failures,
        cancel_requested=row.cancel_requested,
        error=cast("Problem | None", row.error),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        updated_at=row.updated_at,
        requested=link.asked if link else True,
        reused=link.reused if link else False,
    )


def load_jobs(session: Session, rows: Sequence[JobRow]) -> list[Job]:
    """Jobs with their runs, by two statements however many there are."""
    links: dict[str, list[Run]] = {row.id: [] for row in rows}
    statement = (
        select(JobRunRow, RunRow)
        .join(RunRow, RunRow.id == JobRunRow.run_id)
        .where(JobRunRow.job_id.in_(links))
        .order_by(JobRunRow.position)
        .execution_options(populate_existing=True)
    )
    for link, run_row in session.execute(statement):
        links[link.job_id].append(to_run(run_row, link))
    return [_to_job(row, links[row.id]) for row in rows]


def _to_job(row: JobRow, runs: Iterable[Run]) -> Job:
    return Job(
        id=row.id,
        video_id=row.video_id,
        priority=PRIORITY_NAMES[row.priority],
        external_id=row.external_id,
        labels=row.labels,
        created_at=row.created_at,
        cancelled_at=row.cancelled_at,
        runs=tuple(runs),
    )


def to_artifact(row: ArtifactRow) -> Artifact:
    """A stored file."""
    return Artifact(row.id, row.kind, row.name, row.media_type, row.sha256, row.size)


def to_result(row: ResultRow, clock: Clock) -> Result:
    """A result on the time axis of its video."""
    return Result(kind=row.kind, seq=row.seq, range=to_time_range(row, clock), score=row.score, data=row.data)


def to_time_range(row: Any, clock: Clock) -> TimeRange | None:
    """The stretch of video that a row speaks of, on the time axis of its video; None where it speaks of the whole."""
    if row.start_frame is None or row.start_pts is None:
        return None
    end_frame = row.start_frame if row.end_frame is None else row.end_frame
    end_pts = row.start_pts if row.end_pts is None else row.end_pts
    return TimeRange(clock.moment_at(row.start_frame, row.start_pts), clock.moment_at(end_frame, end_pts))
