"""Similarity search: videos and shots ranked by the cosine between their embedding and the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import ColumnElement, Double, Label, Select, bindparam, cast, exists, func, select, tuple_
from sqlalchemy.orm import Session, aliased

from shared.store import mapping
from shared.store.search.embeddings import Granularity, QueryVector
from shared.store.transaction import transactional
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

POOL_SIZE = 1000
"""The longest list of one search; as many as an HNSW graph may be asked for at once (`hnsw.ef_search`)."""
EXACT_LIMIT = 10_000
"""Up to so many vectors are compared one by one: about as quick as the graph, and nothing is missed."""
EXACT_SCAN_SETTINGS = {"jit": "off"}
"""Settings of a comparison one by one: compiling it takes longer than it saves."""

MAX_DISTANCE = 2.001
"""No distance is greater, but that of a vector without direction, which is NaN."""

RankPosition = tuple[float, str, int]
"""(distance, run id, seq): where a vector stands in a ranking; no two stand alike."""


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Which vectors to rank, and which part of the ranking.

    Args:
        per: those of whole videos, or those of shots.
        labels: only videos that a job with all of these labels is about.
        exclude_video_id: a video that is left out.
        limit: how many.
        after: the place after which to begin.
    """

    per: Granularity
    labels: dict[str, str] = field(default_factory=dict)
    exclude_video_id: str | None = None
    limit: int = 20
    after: RankPosition | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A video or a shot, and how like it is.

    Args:
        range: of the shot; None for a video.
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
    def position(self) -> RankPosition:
        """Where a list that ends here goes on."""
        return self.distance, self.run_id, self.seq


@dataclass(frozen=True, slots=True)
class ExcludedCounts:
    """Videos that are embedded, and were not ranked.

    Args:
        other_weights: since all of their vectors are of other weights.
        other_per: since these weights were run on them per shot where videos are wanted, or the other way round.
    """

    other_weights: int
    other_per: int


@transactional
def find_neighbours(session: Session, query: QueryVector, search_filter: SearchFilter) -> list[Neighbour]:
    """The vectors most like the one asked with, nearest first; those at the same distance by id.

    Up to `EXACT_LIMIT` vectors are compared one by one. Of more, the index returns the nearest `POOL_SIZE`, which are
    ranked by their exact distance: the order is always exact, but one of the nearest may be missing. A page is a part
    of the whole ranking, so the pages of one search fit together even if vectors are added meanwhile.
    """
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})  # one state for all statements
    ranked = sorted(_rank_candidates(session, query, search_filter))
    positions = [place for place in ranked if search_filter.after is None or place > search_filter.after][
        : search_filter.limit
    ]
    return _load_neighbours(session, positions)


def _rank_candidates(session: Session, query: QueryVector, search_filter: SearchFilter) -> list[RankPosition]:
    """The places of the nearest `POOL_SIZE`, in any order."""
    query_vector = cast(query.vector, VECTOR)
    distance: Label[float] = EmbeddingRow.vector.op("<=>", return_type=Double())(query_vector).label("distance")
    filters = _build_filters(query, search_filter)
    statement = (
        select(distance, EmbeddingRow.run_id, EmbeddingRow.seq).where(*filters, _is_newest_run()).limit(POOL_SIZE)
    )
    if _count_exceeds(session, EXACT_LIMIT, filters) and len(query.vector) == INDEXED_DIMENSIONS:
        key = cast(func.l2_normalize(query_vector), HALFVEC(INDEXED_DIMENSIONS))
        positions = _execute_with_settings(
            session, statement.order_by(COSINE_KEY.element.op("<=>")(key)), _graph_settings()
        )
        if len(positions) == POOL_SIZE:
            return positions
        # A filter so narrow that the graph gave up: there are more than that.
    return _execute_with_settings(
        session, statement.order_by("distance", EmbeddingRow.run_id, EmbeddingRow.seq), EXACT_SCAN_SETTINGS
    )


def _graph_settings() -> dict[str, str]:
    """Settings under which the graph is read until the filters have let enough through."""
    return {
        "hnsw.ef_search": str(POOL_SIZE),
        "hnsw.iterative_scan": "relaxed_order",  # the order is made exact afterwards
        "hnsw.max_scan_tuples": "100000",
        "work_mem": "64MB",
        "enable_seqscan": "off",  # in order of similarity, the planner is left with the graph
        "enable_bitmapscan": "off",
        "enable_sort": "off",
    }


def _build_filters(query: QueryVector, search_filter: SearchFilter) -> list[ColumnElement[bool]]:
    """Which vectors may be compared, and are wanted.

    `per` and the dimensions are written out, since a parameter does not tell the planner which graph is meant. What
    speaks of other tables stands under IS TRUE, which keeps it a filter: as a join, it would take the order away.
    """
    filters = [
        EmbeddingRow.model == query.model,
        EmbeddingRow.weights == query.weights,
        EmbeddingRow.per == bindparam("per", search_filter.per, literal_execute=True),
        EmbeddingRow.dimensions == bindparam("dimensions", len(query.vector), literal_execute=True),
    ]
    if search_filter.exclude_video_id is not None:
        filters.append(EmbeddingRow.video_id != search_filter.exclude_video_id)
    if search_filter.labels:
        filters.append(EmbeddingRow.video_id.in_(_videos_with_labels(search_filter.labels)).is_(True))
    return filters


def _is_newest_run() -> ColumnElement[bool]:
    """Whether no newer run embedded the same video with the same weights."""
    other_row = aliased(EmbeddingRow)
    newer = exists().where(
        other_row.weights == EmbeddingRow.weights,
        other_row.model == EmbeddingRow.model,
        other_row.per == EmbeddingRow.per,
        other_row.video_id == EmbeddingRow.video_id,
        other_row.run_id > EmbeddingRow.run_id,
    )
    return newer.is_(False)


def _count_exceeds(session: Session, count: int, filters: Sequence[ColumnElement[bool]]) -> bool:
    limited = select(EmbeddingRow.run_id).where(*filters).limit(count + 1).subquery()
    return session.scalars(select(func.count()).select_from(limited)).one() > count


def _execute_with_settings(
    session: Session, statement: Select[float, str, int], settings: dict[str, str]
) -> list[RankPosition]:
    """The places, found under settings that hold for this statement alone."""
    with session.begin_nested() as savepoint:
        session.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))
        rows = session.execute(statement).all()
        savepoint.rollback()
    return [(row.distance, row.run_id, row.seq) for row in rows if row.distance <= MAX_DISTANCE]


def _load_neighbours(session: Session, positions: Sequence[RankPosition]) -> list[Neighbour]:
    """The places with what stands there."""
    spans = EmbeddingRow.start_frame, EmbeddingRow.start_pts, EmbeddingRow.end_frame, EmbeddingRow.end_pts
    statement = (
        select(EmbeddingRow.run_id, EmbeddingRow.seq, *spans, VideoRow)
        .join(VideoRow, VideoRow.id == EmbeddingRow.video_id)
        .where(tuple_(EmbeddingRow.run_id, EmbeddingRow.seq).in_([place[1:] for place in positions]))
    )
    rows = {(row.run_id, row.seq): row for row in session.execute(statement)}
    keyframes_by_run = _find_keyframes(session, {run_id for _, run_id, _ in positions})
    neighbours = []
    for distance, run_id, seq in positions:
        row, video = rows[run_id, seq], mapping.to_stored_video(rows[run_id, seq].VideoRow)
        span = mapping.to_time_range(row, video.facts.clock)
        neighbours.append(Neighbour(video, run_id, seq, span, distance, keyframes_by_run.get(run_id) if span else None))
    return neighbours


def _find_keyframes(session: Session, run_ids: set[str]) -> dict[str, str]:
    """Run -> archive with the keyframes of its shots, which the run kept that found them."""
    statement = (
        select(NeedRow.run_id, ArtifactRow.id)
        .join(ArtifactRow, ArtifactRow.run_id == NeedRow.needs_run_id)
        .where(NeedRow.run_id.in_(run_ids), ArtifactRow.kind == "keyframes")
    )
    return {row.run_id: row.id for row in session.execute(statement)}


@transactional
def count_excluded(session: Session, query: QueryVector, search_filter: SearchFilter) -> ExcludedCounts:
    """The videos that the same filters let through and that have no vector to be ranked."""
    same_video = EmbeddingRow.video_id == VideoRow.id
    same_weights = [same_video, EmbeddingRow.weights == query.weights, EmbeddingRow.model == query.model]
    embedded, comparable = exists().where(same_video), exists().where(*same_weights)
    ranked = exists().where(*same_weights, EmbeddingRow.per == search_filter.per)
    statement = select(
        func.count().filter(embedded, ~comparable).label("other_weights"),
        func.count().filter(comparable, ~ranked).label("other_per"),
    ).select_from(VideoRow)
    if search_filter.exclude_video_id is not None:
        statement = statement.where(VideoRow.id != search_filter.exclude_video_id)
    if search_filter.labels:
        statement = statement.where(VideoRow.id.in_(_videos_with_labels(search_filter.labels)))
    return ExcludedCounts(*session.execute(statement).one())


def _videos_with_labels(labels: dict[str, str]) -> Select[str]:
    """The videos that a job with these labels is about."""
    return select(JobRow.video_id).where(JobRow.labels.contains(labels))
