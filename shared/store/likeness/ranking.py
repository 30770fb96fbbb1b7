"""Likeness: films and shots in order of the cosine between their embedding and the one asked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import ColumnElement, Double, Label, Select, bindparam, cast, exists, func, select, tuple_
from sqlalchemy.orm import Session, aliased

from shared.store import views
from shared.store.likeness.embeddings import Per, Question
from shared.store.transaction import verb
from shared.tables import (
    COSINE_KEY,
    INDEXED_DIMENSIONS,
    ArtifactRow,
    EmbeddingRow,
    JobRow,
    NeedRow,
    VideoRow,
)
from shared.values import StoredVideo, TimeRange

POOL = 1000
"""The longest list of one search; as many as an HNSW graph may be asked for at once (`hnsw.ef_search`)."""
EXACT = 10_000
"""Up to so many vectors are compared one by one: about as quick as the graph, and nothing is missed."""
ONE_BY_ONE = {"jit": "off"}
"""Settings of a comparison one by one: compiling it takes longer than it saves."""

FARTHEST = 2.001
"""No distance is greater, but that of a vector without direction, which is NaN."""

Place = tuple[float, str, int]
"""(distance, run id, seq): where a vector stands in a ranking; no two stand alike."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which vectors to rank, and which part of the ranking.

    Args:
        per: those of whole films, or those of shots.
        labels: only films that a job with all of these labels is about.
        not_of: a film that is left out.
        limit: how many.
        after: the place after which to begin.
    """

    per: Per
    labels: dict[str, str] = field(default_factory=dict)
    not_of: str | None = None
    limit: int = 20
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class Near:
    """A film or a shot, and how like it is.

    Args:
        range: of the shot; None for a film.
        distance: 1 - cosine, 0..2.
        keyframes: id of the archive with those of the shot; None where there is none.
    """

    video: StoredVideo
    run_id: str
    seq: int
    range: TimeRange | None
    distance: float
    keyframes: str | None

    @property
    def similarity(self) -> float:
        """Cosine of the angle between the two vectors, -1..1."""
        return 1 - self.distance

    @property
    def place(self) -> Place:
        """Where a list that ends here goes on."""
        return self.distance, self.run_id, self.seq


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Films that are embedded, and were not ranked.

    Args:
        other_weights: since all of their vectors are of other weights.
        other_per: since these weights were run on them per shot where films are wanted, or the other way round.
    """

    other_weights: int
    other_per: int


@verb
def nearest(session: Session, question: Question, wanted: Wanted) -> list[Near]:
    """The vectors most like the one asked with, nearest first; those at the same distance by id.

    Up to `EXACT` vectors are compared one by one. Of more, the graph names the nearest `POOL`, and these are ranked by
    their exact distance: the order is always exact, but one of the nearest may be missing. A page is a part of the
    whole ranking, so the pages of one search fit together whatever is added meanwhile.
    """
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})  # one state for all statements
    ranked = sorted(_ranked(session, question, wanted))
    places = [place for place in ranked if wanted.after is None or place > wanted.after][: wanted.limit]
    return _read(session, places)


def _ranked(session: Session, question: Question, wanted: Wanted) -> list[Place]:
    """The places of the nearest `POOL`, in any order."""
    asked = cast(question.vector, VECTOR)
    distance: Label[float] = EmbeddingRow.vector.op("<=>", return_type=Double())(asked).label("distance")
    filters = _filters(question, wanted)
    statement = select(distance, EmbeddingRow.run_id, EmbeddingRow.seq).where(*filters, _newest()).limit(POOL)
    if _more_than(session, EXACT, filters) and len(question.vector) == INDEXED_DIMENSIONS:
        key = cast(func.l2_normalize(asked), HALFVEC(INDEXED_DIMENSIONS))
        places = _execute(session, statement.order_by(COSINE_KEY.element.op("<=>")(key)), _by_graph())
        if len(places) == POOL:
            return places
        # A filter so narrow that the graph gave up: there are more than that.
    return _execute(session, statement.order_by("distance", EmbeddingRow.run_id, EmbeddingRow.seq), ONE_BY_ONE)


def _by_graph() -> dict[str, str]:
    """Settings under which the graph is read until the filters have let enough through."""
    return {
        "hnsw.ef_search": str(POOL),
        "hnsw.iterative_scan": "relaxed_order",  # the order is made exact afterwards
        "hnsw.max_scan_tuples": "100000",
        "work_mem": "64MB",
        "enable_seqscan": "off",  # in order of likeness, the planner is left with the graph
        "enable_bitmapscan": "off",
        "enable_sort": "off",
    }


def _filters(question: Question, wanted: Wanted) -> list[ColumnElement[bool]]:
    """Which vectors may be compared, and are wanted.

    `per` and the dimensions are written out, since a parameter does not tell the planner which graph is meant. What
    speaks of other tables stands under IS TRUE, which keeps it a filter: as a join, it would take the order away.
    """
    filters = [
        EmbeddingRow.model == question.model,
        EmbeddingRow.weights == question.weights,
        EmbeddingRow.per == bindparam("per", wanted.per, literal_execute=True),
        EmbeddingRow.dimensions == bindparam("dimensions", len(question.vector), literal_execute=True),
    ]
    if wanted.not_of is not None:
        filters.append(EmbeddingRow.video_id != wanted.not_of)
    if wanted.labels:
        filters.append(EmbeddingRow.video_id.in_(_labelled(wanted.labels)).is_(True))
    return filters


def _newest() -> ColumnElement[bool]:
    """Whether no newer run embedded the same film with the same weights."""
    other = aliased(EmbeddingRow)
    newer = exists().where(
        other.weights == EmbeddingRow.weights,
        other.model == EmbeddingRow.model,
        other.per == EmbeddingRow.per,
        other.video_id == EmbeddingRow.video_id,
        other.run_id > EmbeddingRow.run_id,
    )
    return newer.is_(False)


def _more_than(session: Session, count: int, filters: Sequence[ColumnElement[bool]]) -> bool:
    some = select(EmbeddingRow.run_id).where(*filters).limit(count + 1).subquery()
    return session.scalars(select(func.count()).select_from(some)).one() > count


def _execute(session: Session, statement: Select[float, str, int], settings: dict[str, str]) -> list[Place]:
    """The places, found under settings that hold for this statement alone."""
    with session.begin_nested() as settled:
        session.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))
        rows = session.execute(statement).all()
        settled.rollback()
    return [(row.distance, row.run_id, row.seq) for row in rows if row.distance <= FARTHEST]


def _read(session: Session, places: Sequence[Place]) -> list[Near]:
    """The places with what stands there."""
    spans = EmbeddingRow.start_frame, EmbeddingRow.start_pts, EmbeddingRow.end_frame, EmbeddingRow.end_pts
    statement = (
        select(EmbeddingRow.run_id, EmbeddingRow.seq, *spans, VideoRow)
        .join(VideoRow, VideoRow.id == EmbeddingRow.video_id)
        .where(tuple_(EmbeddingRow.run_id, EmbeddingRow.seq).in_([place[1:] for place in places]))
    )
    rows = {(row.run_id, row.seq): row for row in session.execute(statement)}
    archives = _keyframes(session, {run_id for _, run_id, _ in places})
    found = []
    for distance, run_id, seq in places:
        row, video = rows[run_id, seq], views.stored_video(rows[run_id, seq].VideoRow)
        span = views.span(row, video.video.clock)
        found.append(Near(video, run_id, seq, span, distance, archives.get(run_id) if span else None))
    return found


def _keyframes(session: Session, run_ids: set[str]) -> dict[str, str]:
    """Run -> archive with the keyframes of its shots, which the run kept that found them."""
    statement = (
        select(NeedRow.run_id, ArtifactRow.id)
        .join(ArtifactRow, ArtifactRow.run_id == NeedRow.needs_run_id)
        .where(NeedRow.run_id.in_(run_ids), ArtifactRow.kind == "keyframes")
    )
    return {row.run_id: row.id for row in session.execute(statement)}


@verb
def left_out(session: Session, question: Question, wanted: Wanted) -> LeftOut:
    """The films that the same filters let through and that have no vector to be ranked."""
    mine = EmbeddingRow.video_id == VideoRow.id
    alike = [mine, EmbeddingRow.weights == question.weights, EmbeddingRow.model == question.model]
    embedded, comparable = exists().where(mine), exists().where(*alike)
    ranked = exists().where(*alike, EmbeddingRow.per == wanted.per)
    statement = select(
        func.count().filter(embedded, ~comparable).label("other_weights"),
        func.count().filter(comparable, ~ranked).label("other_per"),
    ).select_from(VideoRow)
    if wanted.not_of is not None:
        statement = statement.where(VideoRow.id != wanted.not_of)
    if wanted.labels:
        statement = statement.where(VideoRow.id.in_(_labelled(wanted.labels)))
    return LeftOut(*session.execute(statement).one())


def _labelled(labels: dict[str, str]) -> Select[str]:
    """The films that a job with these labels is about."""
    return select(JobRow.video_id).where(JobRow.labels.contains(labels))
