"""Embeddings: kept with the run that made them, and asked with.

Only vectors of the same model and weights are ever compared. Parameters of a run change how well a vector stands for a
video (`clips`), not what its numbers mean, so they keep no vectors apart. Where several runs embedded a video with the
same weights, the newest speaks for it: ids of runs sort by the time they were planned.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Any, Literal

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import REAL, Double, cast, func, insert, select
from sqlalchemy.dialects.postgresql import array as array_of
from sqlalchemy.orm import Session

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.store import mapping
from shared.store.transaction import transactional
from shared.store.videos.videos import get_video_row
from shared.tables import EmbeddingRow
from shared.values import Clock, Embedding, TimeRange

Granularity = Literal["video", "shot"]

CHUNK = 100
"""Vectors sent at a time: 4 MB as text."""
NO_EMBEDDINGS = "This video has no embeddings yet: run r2plus1d on it, and ask again when the job has succeeded."
NO_SHOT_EMBEDDINGS = (
    "This video has embeddings of the whole only: run r2plus1d on it with per=shot to ask by a part of it."
)
EMBEDDINGS_GONE = "The embeddings that this list began with are gone: ask again without page_token."


@dataclass(frozen=True, slots=True)
class VideoPart:
    """The part of a video to ask with: one shot, or from `start_s` to `end_s`; the whole where nothing is said.

    Args:
        seq: number of the embedding, which is that of its shot.
        start_s, end_s: seconds since the first frame, end exclusive; None: from the start, to the end.
    """

    seq: int | None = None
    start_s: Fraction | None = None
    end_s: Fraction | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is no part at all."""
        return self == VideoPart()


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A vector to ask with.

    Args:
        model, weights: what it may be compared with.
        vector: its numbers.
        video_id: the video it comes from; None for a vector of the caller's own.
        run_id: the run that made it; likewise.
        seq: its number in that run, where it is one vector.
        range: the part of the video that it stands for; None for the whole.
        vectors: of how many it is the mean.
    """

    model: str
    weights: str
    vector: list[float]
    video_id: str | None = None
    run_id: str | None = None
    seq: int | None = None
    range: TimeRange | None = None
    vectors: int = 1


def insert_embeddings(
    session: Session, embeddings: Sequence[Embedding], *, run_id: str, video_id: str, model: str, weights: str | None
) -> None:
    """Write the vectors of a run, inside its last transaction. ValueError for vectors of no weights."""
    if embeddings and not weights:
        raise ValueError(f"{model} gave vectors, and no weights that say what they may be compared with")
    run_identity = {"run_id": run_id, "video_id": video_id, "model": model, "weights": weights}
    for first in range(0, len(embeddings), CHUNK):
        session.execute(
            insert(EmbeddingRow),
            [run_identity | _embedding_values(embedding) for embedding in embeddings[first : first + CHUNK]],
        )


def _embedding_values(embedding: Embedding) -> dict[str, Any]:
    span = embedding.range
    return {
        "seq": embedding.seq,
        "per": "shot" if span else "video",
        "dimensions": len(embedding.vector),
        "start_frame": span.start.frame if span else None,
        "start_pts": span.start.pts if span else None,
        "end_frame": span.end.frame if span else None,
        "end_pts": span.end.pts if span else None,
        "vector": embedding.vector.tolist(),
    }


@transactional
def query_from_vector(session: Session, vector: Sequence[float], weights: str) -> QueryVector:
    """A vector of the caller's own. NotFound: no embedding has these weights; InvalidRequest: not one of those."""
    numbers = array("f", vector)
    statement = select(EmbeddingRow.model, EmbeddingRow.dimensions).where(EmbeddingRow.weights == weights).limit(1)
    row = session.execute(statement).one_or_none()
    if row is None:
        raise NotFound("No video has an embedding of these weights.")
    if len(numbers) != row.dimensions:
        raise InvalidRequest(
            f"Embeddings of these weights have {row.dimensions} numbers; the vector has {len(vector)}."
        )
    if not all(isfinite(number) for number in numbers) or not any(numbers):
        raise InvalidRequest("The vector has no direction: its numbers are all zero, or some of them too large.")
    largest = max(map(abs, numbers))  # the database squares them in float32: 1e-30 and 1e30 would have no direction
    return QueryVector(row.model, weights, [number / largest for number in numbers])


@transactional
def query_from_video(
    session: Session, video_id: str, part: VideoPart, *, weights: str | None = None, run_id: str | None = None
) -> QueryVector:
    """What a video, or a part of it, is asked with.

    The newest run that can say it is taken, of those weights where some are named. A video that was embedded per shot
    only is the mean of its shots, and a range is the mean of the shots in it, each weighted by its time inside.

    Args:
        run_id: the run that was taken before, when a list goes on.

    Raises:
        NotFound: no such video, or no such shot.
        Conflict: nothing was embedded, or not with these weights, or not per shot.
        InvalidRequest: no shot lies in the range.
    """
    clock = Clock.from_dict(get_video_row(session, video_id).probe)
    run = _choose_run(_list_runs(session, video_id), part, weights, run_id)
    if part.seq is not None or run.per == "video":
        query = _query_from_embedding(session, run, part, clock)
    else:
        query = _query_from_mean(session, run, part, clock)
    if not any(query.vector):
        raise Conflict("This embedding has no direction: its numbers are all zero.")
    return query


@dataclass(frozen=True, slots=True)
class _EmbeddingRun:
    """A run that embedded the video."""

    run_id: str
    video_id: str
    model: str
    weights: str
    per: str


def _list_runs(session: Session, video_id: str) -> list[_EmbeddingRun]:
    """The runs that embedded the video, newest first."""
    columns = (getattr(EmbeddingRow, column.name) for column in fields(_EmbeddingRun))
    statement = select(*columns).where(EmbeddingRow.video_id == video_id).distinct()
    return [_EmbeddingRun(*row) for row in session.execute(statement.order_by(EmbeddingRow.run_id.desc()))]


def _choose_run(runs: list[_EmbeddingRun], part: VideoPart, weights: str | None, run_id: str | None) -> _EmbeddingRun:
    """The run that speaks for the video, or for a part of it. Conflict."""
    if not runs:
        raise Conflict(NO_EMBEDDINGS if run_id is None else EMBEDDINGS_GONE)
    if weights is not None and weights not in {run.weights for run in runs}:
        known = ", ".join(dict.fromkeys(f"{run.weights} ({run.model})" for run in runs))
        raise Conflict(f"This video has no embedding of the weights {weights}. It has embeddings of: {known}.")
    runs = [run for run in runs if weights in {None, run.weights} and run_id in {None, run.run_id}]
    if not runs:
        raise Conflict(EMBEDDINGS_GONE)
    if part.is_whole:
        same_weights = (run for run in runs if (run.model, run.weights) == (runs[0].model, runs[0].weights))
        return next((run for run in same_weights if run.per == "video"), runs[0])
    per_shot = [run for run in runs if run.per == "shot"]
    if not per_shot:
        raise Conflict(NO_SHOT_EMBEDDINGS)
    return per_shot[0]


def _query_from_embedding(session: Session, run: _EmbeddingRun, part: VideoPart, clock: Clock) -> QueryVector:
    """A vector of a run, the only one where no number is named. NotFound."""
    statement = select(EmbeddingRow).where(EmbeddingRow.run_id == run.run_id).order_by(EmbeddingRow.seq).limit(1)
    if part.seq is not None:
        statement = statement.where(EmbeddingRow.seq == part.seq)
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise NotFound("This video has no embedding of that number.")
    span = mapping.to_time_range(row, clock)
    return QueryVector(run.model, run.weights, row.vector, run.video_id, run.run_id, part.seq, span)


def _query_from_mean(session: Session, run: _EmbeddingRun, part: VideoPart, clock: Clock) -> QueryVector:
    """The mean of the shots of a run in a part of the video, weighted by the seconds that lie in it. InvalidRequest.

    It is not divided by the sum of the weights, since no cosine depends on the length.
    """
    since, until = (None if end is None else _to_pts(end, clock) for end in (part.start_s, part.end_s))
    overlap_pts = func.least(EmbeddingRow.end_pts, until) - func.greatest(EmbeddingRow.start_pts, since)
    seconds = cast(cast(overlap_pts, Double) * float(clock.time_base), REAL)
    weighted = EmbeddingRow.vector.op("*")(cast(func.array_fill(seconds, array_of([EmbeddingRow.dimensions])), VECTOR))
    statement = select(
        func.avg(weighted, type_=VECTOR()).label("vector"),
        func.count().label("vectors"),
        func.min(EmbeddingRow.start_frame).label("start_frame"),
        func.min(EmbeddingRow.start_pts).label("start_pts"),
        func.max(EmbeddingRow.end_frame).label("end_frame"),
        func.max(EmbeddingRow.end_pts).label("end_pts"),
    ).where(EmbeddingRow.run_id == run.run_id, overlap_pts > 0)
    row = session.execute(statement).one()
    if not row.vectors:
        raise InvalidRequest("No embedded shot lies in this range.")
    span = None if part.is_whole else mapping.to_time_range(row, clock)
    return QueryVector(run.model, run.weights, row.vector, run.video_id, run.run_id, None, span, row.vectors)


def _to_pts(seconds: Fraction, clock: Clock) -> Decimal:
    """As a place on the time axis of the video, between two ticks where it lies there."""
    return Decimal(str(float(clock.start_pts + seconds / clock.time_base)))
