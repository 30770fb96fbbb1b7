"""Embeddings: kept with the run that made them, and asked with.

Only vectors of the same model and weights are ever compared. Parameters of a run change how well a vector stands for a
film (`clips`), not what its numbers mean, so they keep no vectors apart. Where several runs embedded a film with the
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
from shared.store import views
from shared.store.transaction import verb
from shared.store.videos import row_of
from shared.tables import EmbeddingRow
from shared.values import Clock, Embedding, TimeRange

Per = Literal["video", "shot"]

CHUNK = 100
"""Vectors sent at a time: 4 MB as text."""
NOTHING_YET = "This video has no embeddings yet: run r2plus1d on it, and ask again when the job has succeeded."
NO_SHOTS = "This video has embeddings of the whole only: run r2plus1d on it with per=shot to ask by a part of it."
GONE = "The embeddings that this list began with are gone: ask again without page_token."


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a film to ask with: one shot, or from `start_s` to `end_s`; the whole where nothing is said.

    Args:
        seq: number of the embedding, which is that of its shot.
        start_s, end_s: seconds since the first frame, end exclusive; None: from the start, to the end.
    """

    seq: int | None = None
    start_s: Fraction | None = None
    end_s: Fraction | None = None

    @property
    def whole(self) -> bool:
        """Whether it is no part at all."""
        return self == Part()


@dataclass(frozen=True, slots=True)
class Question:
    """A vector to ask with.

    Args:
        model, weights: what it may be compared with.
        vector: its numbers.
        video_id: the film it comes from; None for a vector of the caller's own.
        run_id: the run that made it; likewise.
        seq: its number in that run, where it is one vector.
        range: the part of the film that it stands for; None for the whole.
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


def keep(
    session: Session, found: Sequence[Embedding], *, run_id: str, video_id: str, model: str, weights: str | None
) -> None:
    """Write the vectors of a run, inside its last transaction. ValueError for vectors of no weights."""
    if found and not weights:
        raise ValueError(f"{model} gave vectors, and no weights that say what they may be compared with")
    whose = {"run_id": run_id, "video_id": video_id, "model": model, "weights": weights}
    for first in range(0, len(found), CHUNK):
        session.execute(insert(EmbeddingRow), [whose | _values(one) for one in found[first : first + CHUNK]])


def _values(embedding: Embedding) -> dict[str, Any]:
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


@verb
def of_vector(session: Session, vector: Sequence[float], weights: str) -> Question:
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
    return Question(row.model, weights, [number / largest for number in numbers])


@verb
def of_video(
    session: Session, video_id: str, part: Part, *, weights: str | None = None, run_id: str | None = None
) -> Question:
    """What a film, or a part of it, is asked with.

    The newest run that can say it is taken, of those weights where some are named. A film that was embedded per shot
    only is the mean of its shots, and a range is the mean of the shots in it, each weighted by its time inside.

    Args:
        run_id: the run that was taken before, when a list goes on.

    Raises:
        NotFound: no such video, or no such shot.
        Conflict: nothing was embedded, or not with these weights, or not per shot.
        InvalidRequest: no shot lies in the range.
    """
    clock = Clock.read(row_of(session, video_id).probe)
    run = _chosen(_runs(session, video_id), part, weights, run_id)
    if part.seq is not None or run.per == "video":
        question = _one(session, run, part, clock)
    else:
        question = _mean(session, run, part, clock)
    if not any(question.vector):
        raise Conflict("This embedding has no direction: its numbers are all zero.")
    return question


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that embedded the film."""

    run_id: str
    video_id: str
    model: str
    weights: str
    per: str


def _runs(session: Session, video_id: str) -> list[_Run]:
    """The runs that embedded the film, newest first."""
    columns = (getattr(EmbeddingRow, one.name) for one in fields(_Run))
    mine = select(*columns).where(EmbeddingRow.video_id == video_id).distinct()
    return [_Run(*row) for row in session.execute(mine.order_by(EmbeddingRow.run_id.desc()))]


def _chosen(runs: list[_Run], part: Part, weights: str | None, run_id: str | None) -> _Run:
    """The run that speaks for the film, or for a part of it. Conflict."""
    if not runs:
        raise Conflict(NOTHING_YET if run_id is None else GONE)
    if weights is not None and weights not in {run.weights for run in runs}:
        known = ", ".join(dict.fromkeys(f"{run.weights} ({run.model})" for run in runs))
        raise Conflict(f"This video has no embedding of the weights {weights}. It has embeddings of: {known}.")
    runs = [run for run in runs if weights in {None, run.weights} and run_id in {None, run.run_id}]
    if not runs:
        raise Conflict(GONE)
    if part.whole:
        alike = (run for run in runs if (run.model, run.weights) == (runs[0].model, runs[0].weights))
        return next((run for run in alike if run.per == "video"), runs[0])
    per_shot = [run for run in runs if run.per == "shot"]
    if not per_shot:
        raise Conflict(NO_SHOTS)
    return per_shot[0]


def _one(session: Session, run: _Run, part: Part, clock: Clock) -> Question:
    """A vector of a run, the only one where no number is named. NotFound."""
    statement = select(EmbeddingRow).where(EmbeddingRow.run_id == run.run_id).order_by(EmbeddingRow.seq).limit(1)
    if part.seq is not None:
        statement = statement.where(EmbeddingRow.seq == part.seq)
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise NotFound("This video has no embedding of that number.")
    span = views.span(row, clock)
    return Question(run.model, run.weights, row.vector, run.video_id, run.run_id, part.seq, span)


def _mean(session: Session, run: _Run, part: Part, clock: Clock) -> Question:
    """The mean of the shots of a run in a part of the film, weighted by the seconds that lie in it. InvalidRequest.

    It is not divided by the sum of the weights, since no cosine depends on the length.
    """
    since, until = (None if end is None else _pts(end, clock) for end in (part.start_s, part.end_s))
    inside = func.least(EmbeddingRow.end_pts, until) - func.greatest(EmbeddingRow.start_pts, since)
    seconds = cast(cast(inside, Double) * float(clock.time_base), REAL)
    weighted = EmbeddingRow.vector.op("*")(cast(func.array_fill(seconds, array_of([EmbeddingRow.dimensions])), VECTOR))
    statement = select(
        func.avg(weighted, type_=VECTOR()).label("vector"),
        func.count().label("vectors"),
        func.min(EmbeddingRow.start_frame).label("start_frame"),
        func.min(EmbeddingRow.start_pts).label("start_pts"),
        func.max(EmbeddingRow.end_frame).label("end_frame"),
        func.max(EmbeddingRow.end_pts).label("end_pts"),
    ).where(EmbeddingRow.run_id == run.run_id, inside > 0)
    row = session.execute(statement).one()
    if not row.vectors:
        raise InvalidRequest("No embedded shot lies in this range.")
    span = None if part.whole else views.span(row, clock)
    return Question(run.model, run.weights, row.vector, run.video_id, run.run_id, None, span, row.vectors)


def _pts(seconds: Fraction, clock: Clock) -> Decimal:
    """As a place on the axis of the film, between two ticks where it lies there."""
    return Decimal(str(float(clock.start_pts + seconds / clock.time_base)))
