"""Routes of the search by example: videos and shots whose embeddings are similar to that of the query.

Cosine similarity: 1 is the same direction, 0 unrelated, -1 opposite. Only embeddings of the same weights are compared.
The answer names them, and says how many videos were left out because they have embeddings of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from apiflask import APIBlueprint
from flask import request
from pydantic import Field

from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Body, Query, Record
from api.jobs.schemas import Label, LabelName, RangeBody, read_label_query
from api.results.routes import FingerprintRecord, MomentRecord
from api.videos.routes import VideoUrls, build_video_record
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.store import search
from shared.store.search import Neighbour, SearchFilter, embeddings
from shared.store.search.embeddings import Granularity, QueryVector, VideoPart
from shared.store.videos import videos
from shared.values import TimeRange

bp = APIBlueprint("search", __name__, url_prefix="/v1", tag="Search")

MAX_LIMIT, MAX_SEQ = 200, 2**31 - 1
PER_DOC = "Rank videos, or shots; absent: the kind of the query (a video for a vector)."
SEQ_DOC = "Search with this embedding of the video: the number of its shot."
WEIGHTS_DOC = "Fingerprint of the weights; absent: those of the newest run."
SEARCH_PROBLEMS = document_problems(InvalidRequest, NotFound, Conflict)


class SearchBody(Body):
    """The query: a video, a part of it (`seq` or `range`), or a vector with its weights. And what to rank."""

    video_id: str | None = None
    seq: int | None = Field(None, ge=0, le=MAX_SEQ, description=SEQ_DOC)
    range: RangeBody | None = Field(
        None, description="Search with the shots in it: their mean, each weighted by the part of it that lies inside."
    )
    vector: list[float] | None = Field(None, min_length=1, max_length=16_000, description="One of your own.")
    weights: str | None = Field(None, min_length=1, max_length=64, description=WEIGHTS_DOC)
    per: Granularity | None = Field(None, description=PER_DOC)
    labels: dict[LabelName, Label] = Field(
        default={}, max_length=64, description="Only videos with a job that has all of these."
    )
    exclude_same_video: bool = Field(True, description="Leave out the video of the query.")
    limit: int = Field(20, ge=1, le=MAX_LIMIT)
    page_token: str | None = None


class SimilarQuery(Query):
    """Which part of the video is the query, and what to rank."""

    seq: int | None = Field(None, ge=0, le=MAX_SEQ, description=SEQ_DOC)
    start_s: float | None = Field(None, ge=0, allow_inf_nan=False, description="Search with the shots from here on.")
    end_s: float | None = Field(None, gt=0, allow_inf_nan=False, description="Search with the shots before this.")
    weights: str | None = Field(None, min_length=1, max_length=64, description=WEIGHTS_DOC)
    per: Granularity | None = Field(None, description=PER_DOC)
    label: str | None = Field(None, description="`name:value`: only videos with such a job; may be given again.")
    exclude_same_video: bool = Field(True, description="Leave out the video of the query.")
    limit: int = Field(20, ge=1, le=MAX_LIMIT)
    page_token: str | None = None


class NeighbourVideo(Record):
    """The video that it is, or is a part of."""

    id: str
    name: str
    urls: VideoUrls


class NeighbourUrls(Record):
    """Links to its images."""

    thumbnail: str
    keyframe: str | None = Field(description="Of a shot, from the run that found it; null where none was kept.")


class NeighbourRecord(Record):
    """A video or a shot, with its similarity."""

    video: NeighbourVideo
    run_id: str = Field(description="The run that embedded it.")
    seq: int
    start: MomentRecord | None = Field(description="Null for a whole video.")
    end: MomentRecord | None = Field(description="Exclusive.")
    similarity: float = Field(description="Cosine, -1..1.")
    urls: NeighbourUrls


class SearchQueryRecord(Record):
    """The query as it was understood."""

    video_id: str | None = Field(description="Null for a vector of your own.")
    run_id: str | None
    seq: int | None
    start: MomentRecord | None = Field(description="Of the shots that were taken; null for a whole video.")
    end: MomentRecord | None = Field(description="Exclusive.")
    vectors: int = Field(description="Of how many embeddings the vector is the mean.")


class ExcludedRecord(Record):
    """Videos that are embedded and were not ranked."""

    other_weights: int = Field(description="They have embeddings of other weights only.")
    other_per: int = Field(description="With these weights they were embedded per shot only, or as a whole only.")


class NeighbourPage(Record):
    """The most similar first; at equal similarity by id. A list has at most 1,000 items in all."""

    items: list[NeighbourRecord]
    model: str
    weights: FingerprintRecord = Field(description="Every embedding that was compared is of these.")
    per: Granularity
    query: SearchQueryRecord
    left_out: ExcludedRecord
    next_page_token: str | None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search, of either route."""

    video_part: VideoPart
    weights: str | None
    per: Granularity | None
    labels: dict[str, str]
    exclude_same_video: bool
    limit: int


@bp.post("/search")
@bp.input(SearchBody, arg_name="body")
@bp.output(NeighbourPage)
@bp.doc(responses=SEARCH_PROBLEMS)
def search_similar(body: SearchBody) -> dict[str, Any]:
    """Find what is similar to a video, a shot, a range of one, or a vector.

    409 while the video has no embeddings (`r2plus1d` makes them), or none of the requested weights or kind.
    """
    _check_query_kind(body)
    time_range = body.range
    part = VideoPart(
        body.seq,
        _to_fraction(time_range.start_s if time_range else None),
        _to_fraction(time_range.end_s if time_range else None),
    )
    request_values = SearchRequest(part, body.weights, body.per, dict(body.labels), body.exclude_same_video, body.limit)
    cursor = _read_cursor(body.page_token, "")
    if body.vector is None:
        query_vector = _query_by_video(str(body.video_id), request_values, cursor, "")
    else:
        query_vector = _query_by_vector(body.vector, str(body.weights))
    return _run_search(query_vector, request_values, cursor)[0]


@bp.get("/videos/<video_id>/similar")
@bp.input(SimilarQuery, location="query", arg_name="query")
@bp.output(NeighbourPage)
@bp.doc(responses=SEARCH_PROBLEMS)
def list_similar(video_id: str, query: SimilarQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """Find what is similar to this video, one of its shots, or a range of it.

    409 while the video has no embeddings (`r2plus1d` makes them), or none of the requested weights or kind.
    """
    if query.end_s is not None and query.end_s <= (query.start_s or 0):
        raise bad_query("end_s", "ends_too_early", "end_s must come after start_s.")
    part = VideoPart(query.seq, _to_fraction(query.start_s), _to_fraction(query.end_s))
    if part.seq is not None and part != VideoPart(part.seq):
        raise bad_query("seq", "given_twice", "Search with seq or with a range, not with both.")
    labels = read_label_query(request.args.getlist("label"))
    request_values = SearchRequest(part, query.weights, query.per, labels, query.exclude_same_video, query.limit)
    cursor = _read_cursor(query.page_token, "/query")
    return _run_search(_query_by_video(video_id, request_values, cursor, "/query"), request_values, cursor)


def _check_query_kind(body: SearchBody) -> None:
    """InvalidRequest unless the body has exactly one query."""
    for name in ("seq", "range"):
        if getattr(body, name) is not None and body.video_id is None:
            raise InvalidRequest.at(f"/{name}", "no_video", f"{name} is a part of a video: name it in video_id.")
    if (body.video_id is None) == (body.vector is None):
        raise InvalidRequest.at("/video_id", "one_of", "Search with either video_id or vector.")
    if body.seq is not None and body.range is not None:
        raise InvalidRequest.at("/range", "given_twice", "Search with seq or with range, not with both.")
    if body.vector is not None and body.weights is None:
        detail = "A vector has to come with the fingerprint of the weights that made it."
        raise InvalidRequest.at("/weights", "missing", detail)


def _to_fraction(seconds: float | None) -> Fraction | None:
    """Convert a time exactly as it is written, not as the binary fraction next to it."""
    return None if seconds is None else Fraction(str(seconds))


def _read_cursor(token: str | None, pointer_prefix: str) -> tuple[float, str, int, str] | None:
    """Read the cursor of a page token: the last neighbour, and the run of the query on the first page."""
    try:
        cursor: tuple[float, str, int, str] | None = read_page_token("search", token, (float, str, int, str))
    except InvalidRequest as error:
        raise InvalidRequest.at(f"{pointer_prefix}/page_token", "bad_token", error.detail) from None
    return cursor


def _query_by_video(
    video_id: str, search_request: SearchRequest, cursor: tuple[float, str, int, str] | None, pointer_prefix: str
) -> QueryVector:
    """Build the query vector of a video or a part of it; NotFound, Conflict, InvalidRequest."""
    engine, run_id = get_services().engine, cursor[3] if cursor else None
    try:
        videos.get_video(engine, video_id)
    except NotFound as error:
        raise error if pointer_prefix else NotFound.at("/video_id", "not_found", error.detail) from None
    try:
        return embeddings.query_from_video(
            engine, video_id, search_request.video_part, weights=search_request.weights, run_id=run_id
        )
    except NotFound as error:
        raise NotFound.at(f"{pointer_prefix}/seq", "not_found", error.detail) from None
    except InvalidRequest as error:
        raise InvalidRequest.at(
            f"{pointer_prefix}/start_s" if pointer_prefix else "/range", "no_shots", error.detail
        ) from None


def _query_by_vector(vector: list[float], weights: str) -> QueryVector:
    """Check the vector of a request; NotFound, InvalidRequest."""
    try:
        return embeddings.query_from_vector(get_services().engine, vector, weights)
    except NotFound as error:
        raise NotFound.at("/weights", "not_found", error.detail) from None
    except InvalidRequest as error:
        raise InvalidRequest.at("/vector", "not_comparable", error.detail) from None


def _run_search(
    query_vector: QueryVector, search_request: SearchRequest, cursor: tuple[float, str, int, str] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    ranking = SearchFilter(
        per=search_request.per or ("video" if search_request.video_part.is_whole else "shot"),
        labels=search_request.labels,
        exclude_video_id=query_vector.video_id if search_request.exclude_same_video else None,
        limit=search_request.limit + 1,
        after=cursor and cursor[:3],
    )
    neighbours = search.find_neighbours(get_services().engine, query_vector, ranking)
    left_out = search.count_excluded(get_services().engine, query_vector, ranking)
    items, token, headers = paginate_items(
        "search", neighbours, search_request.limit, lambda neighbour: (*neighbour.position, query_vector.run_id or "")
    )
    answer = {
        "items": [_build_neighbour_record(neighbour) for neighbour in items],
        "model": query_vector.model,
        "weights": {"fingerprint": query_vector.weights},
        "per": ranking.per,
        "query": _build_query_record(query_vector),
        "left_out": {"other_weights": left_out.other_weights, "other_per": left_out.other_per},
        "next_page_token": token,
    }
    return answer, headers


def _build_query_record(query_vector: QueryVector) -> dict[str, Any]:
    names = ("video_id", "run_id", "seq", "vectors")
    return {name: getattr(query_vector, name) for name in names} | _build_range_record(query_vector.range)


def _build_neighbour_record(neighbour: Neighbour) -> dict[str, Any]:
    urls = build_video_record(neighbour.video)["urls"]
    keyframe_url = (
        neighbour.keyframes and f"/v1/artifacts/{neighbour.keyframes}/members/shot_{neighbour.seq:04d}_img_1.jpg"
    )
    return {
        "video": {"id": neighbour.video.id, "name": neighbour.video.name, "urls": urls},
        "run_id": neighbour.run_id,
        "seq": neighbour.seq,
        **_build_range_record(neighbour.range),
        "similarity": round(neighbour.similarity, 6),
        "urls": {"thumbnail": urls["thumbnail"] + _build_time_query(neighbour.range), "keyframe": keyframe_url},
    }


def _build_time_query(span: TimeRange | None) -> str:
    return f"?at={float((span.start.seconds + span.end.seconds) / 2):.6f}" if span else ""


def _build_range_record(span: TimeRange | None) -> dict[str, Any]:
    return {"start": span.start.to_dict() if span else None, "end": span.end.to_dict() if span else None}
