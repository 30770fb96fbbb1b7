"""Search by likeness: films and shots whose embedding points the same way as the one asked with.

Cosine similarity: 1 is the same direction, 0 unrelated, -1 opposite. Only embeddings of the same weights are compared.
The answer names them, and says how many films were left out because they have others.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from apiflask import APIBlueprint
from flask import request
from pydantic import Field

from api.errors import Body, Query, Record, bad_query, page, problems, read_token
from api.jobs.asked import Label, LabelName, RangeBody
from api.jobs.routes import read_labels
from api.results.routes import FingerprintRecord, MomentRecord
from api.service.health import services
from api.videos.routes import VideoUrls, record as video_record
from shared.errors import Conflict, FieldError, InvalidRequest, NotFound, SceneworksError
from shared.store import likeness, videos
from shared.store.likeness import Near, Wanted, embeddings
from shared.store.likeness.embeddings import Part, Per, Question
from shared.values import TimeRange

bp = APIBlueprint("search", __name__, url_prefix="/v1", tag="Search")

E = TypeVar("E", bound=SceneworksError)
MAX_LIMIT, LARGEST_SEQ = 200, 2**31 - 1
PER = "Rank films, or shots; absent: what was asked with (a film for a vector)."
SEQ = "Ask with this embedding of the video: the number of its shot."
WEIGHTS = "Fingerprint of the weights; absent: those of the newest run."
EMBEDDED = problems(InvalidRequest, NotFound, Conflict)


class SearchBody(Body):
    """What to ask with: a video, a part of it (`seq` or `range`), or a vector with its weights. And what to rank."""

    video_id: str | None = None
    seq: int | None = Field(None, ge=0, le=LARGEST_SEQ, description=SEQ)
    range: RangeBody | None = Field(
        None, description="Ask with the shots in it: their mean, each weighted by the time of it that lies inside."
    )
    vector: list[float] | None = Field(None, min_length=1, max_length=16_000, description="One of your own.")
    weights: str | None = Field(None, min_length=1, max_length=64, description=WEIGHTS)
    per: Per | None = Field(None, description=PER)
    labels: dict[LabelName, Label] = Field(
        default={}, max_length=64, description="Only videos with a job that has all of these."
    )
    exclude_same_video: bool = Field(True, description="Leave out the video that was asked with.")
    limit: int = Field(20, ge=1, le=MAX_LIMIT)
    page_token: str | None = None


class SimilarQuery(Query):
    """What of the video to ask with, and what to rank."""

    seq: int | None = Field(None, ge=0, le=LARGEST_SEQ, description=SEQ)
    start_s: float | None = Field(None, ge=0, allow_inf_nan=False, description="Ask with the shots from here on.")
    end_s: float | None = Field(None, gt=0, allow_inf_nan=False, description="Ask with the shots before this.")
    weights: str | None = Field(None, min_length=1, max_length=64, description=WEIGHTS)
    per: Per | None = Field(None, description=PER)
    label: str | None = Field(None, description="`name:value`: only videos with such a job; may be given again.")
    exclude_same_video: bool = Field(True, description="Leave out the video that was asked with.")
    limit: int = Field(20, ge=1, le=MAX_LIMIT)
    page_token: str | None = None


class LikeVideo(Record):
    """The video that it is, or is a part of."""

    id: str
    name: str
    urls: VideoUrls


class LikeUrls(Record):
    """Pictures of it."""

    thumbnail: str
    keyframe: str | None = Field(description="Of a shot, from the run that found it; null where none was kept.")


class LikeRecord(Record):
    """A film or a shot, and how like it is."""

    video: LikeVideo
    run_id: str = Field(description="The run that embedded it.")
    seq: int
    start: MomentRecord | None = Field(description="Null for a whole film.")
    end: MomentRecord | None = Field(description="Exclusive.")
    similarity: float = Field(description="Cosine, -1..1.")
    urls: LikeUrls


class AskedRecord(Record):
    """What was asked with."""

    video_id: str | None = Field(description="Null for a vector of your own.")
    run_id: str | None
    seq: int | None
    start: MomentRecord | None = Field(description="Of the shots that were taken; null for a whole film.")
    end: MomentRecord | None = Field(description="Exclusive.")
    vectors: int = Field(description="Of how many embeddings the vector is the mean.")


class LeftOutRecord(Record):
    """Videos that are embedded and were not ranked."""

    other_weights: int = Field(description="They have embeddings of other weights only.")
    other_per: int = Field(description="With these weights they were embedded per shot only, or as a whole only.")


class LikePage(Record):
    """The likest first; those that are equally like, by id. No list has more than 1,000 items in all."""

    items: list[LikeRecord]
    model: str
    weights: FingerprintRecord = Field(description="Every embedding that was compared is of these.")
    per: Per
    query: AskedRecord
    left_out: LeftOutRecord
    next_page_token: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A search, whichever way it came."""

    part: Part
    weights: str | None
    per: Per | None
    labels: dict[str, str]
    exclude: bool
    limit: int


@bp.post("/search")
@bp.input(SearchBody, arg_name="body")
@bp.output(LikePage)
@bp.doc(responses=EMBEDDED)
def search(body: SearchBody) -> dict[str, Any]:
    """Find what is like a video, a shot, a range of one, or a vector.

    409 while the video has no embeddings (`r2plus1d` makes them), or none of the weights or of the kind asked for.
    """
    _check_one_source(body)
    span = body.range
    part = Part(body.seq, _exact(span.start_s if span else None), _exact(span.end_s if span else None))
    asked = Asked(part, body.weights, body.per, dict(body.labels), body.exclude_same_video, body.limit)
    after = _after(body.page_token, "")
    if body.vector is None:
        question = _of_video(str(body.video_id), asked, after, "")
    else:
        question = _of_vector(body.vector, str(body.weights))
    return _answer(question, asked, after)[0]


@bp.get("/videos/<video_id>/similar")
@bp.input(SimilarQuery, location="query", arg_name="query")
@bp.output(LikePage)
@bp.doc(responses=EMBEDDED)
def similar(video_id: str, query: SimilarQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """Find what is like this video, one of its shots, or a range of it.

    409 while the video has no embeddings (`r2plus1d` makes them), or none of the weights or of the kind asked for.
    """
    if query.end_s is not None and query.end_s <= (query.start_s or 0):
        raise bad_query("end_s", "ends_too_early", "end_s must come after start_s.")
    part = Part(query.seq, _exact(query.start_s), _exact(query.end_s))
    if part.seq is not None and part != Part(part.seq):
        raise bad_query("seq", "given_twice", "Ask with seq or with a range, not with both.")
    labels = read_labels(request.args.getlist("label"))
    asked = Asked(part, query.weights, query.per, labels, query.exclude_same_video, query.limit)
    after = _after(query.page_token, "/query")
    return _answer(_of_video(video_id, asked, after, "/query"), asked, after)


def _check_one_source(body: SearchBody) -> None:
    """InvalidRequest unless the body asks with one thing."""
    for name in ("seq", "range"):
        if getattr(body, name) is not None and body.video_id is None:
            raise _fault(InvalidRequest(f"{name} is a part of a video: name it in video_id."), f"/{name}", "no_video")
    if (body.video_id is None) == (body.vector is None):
        raise _fault(InvalidRequest("Ask with either video_id or vector."), "/video_id", "one_of")
    if body.seq is not None and body.range is not None:
        raise _fault(InvalidRequest("Ask with seq or with range, not with both."), "/range", "given_twice")
    if body.vector is not None and body.weights is None:
        told = InvalidRequest("A vector has to come with the fingerprint of the weights that made it.")
        raise _fault(told, "/weights", "missing")


def _exact(seconds: float | None) -> Fraction | None:
    """The time as it is written, not as a binary fraction near it."""
    return None if seconds is None else Fraction(str(seconds))


def _after(token: str | None, where: str) -> tuple[float, str, int, str] | None:
    """The place after which the list goes on, and the run that was asked with from its start."""
    try:
        after: tuple[float, str, int, str] | None = read_token("likeness", token, (float, str, int, str))
    except InvalidRequest as error:
        raise _fault(error, f"{where}/page_token", "bad_token") from None
    return after


def _of_video(video_id: str, asked: Asked, after: tuple[float, str, int, str] | None, where: str) -> Question:
    """What the video is asked with; NotFound, Conflict, InvalidRequest."""
    engine, run_id = services().engine, after[3] if after else None
    try:
        videos.get(engine, video_id)
    except NotFound as error:
        raise error if where else _fault(error, "/video_id", "not_found") from None
    try:
        return embeddings.of_video(engine, video_id, asked.part, weights=asked.weights, run_id=run_id)
    except NotFound as error:
        raise _fault(error, f"{where}/seq", "not_found") from None
    except InvalidRequest as error:
        raise _fault(error, f"{where}/start_s" if where else "/range", "no_shots") from None


def _of_vector(vector: list[float], weights: str) -> Question:
    """What a vector is asked with; NotFound, InvalidRequest."""
    try:
        return embeddings.of_vector(services().engine, vector, weights)
    except NotFound as error:
        raise _fault(error, "/weights", "not_found") from None
    except InvalidRequest as error:
        raise _fault(error, "/vector", "not_comparable") from None


def _fault(error: E, pointer: str, code: str) -> E:
    """The error with the place that it is about."""
    return type(error)(error.detail, errors=(FieldError(pointer, code, error.detail),))


def _answer(
    question: Question, asked: Asked, after: tuple[float, str, int, str] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    wanted = Wanted(
        per=asked.per or ("video" if asked.part.whole else "shot"),
        labels=asked.labels,
        not_of=question.video_id if asked.exclude else None,
        limit=asked.limit + 1,
        after=after and after[:3],
    )
    found = likeness.nearest(services().engine, question, wanted)
    left_out = likeness.left_out(services().engine, question, wanted)
    items, token, headers = page("likeness", found, asked.limit, lambda near: (*near.place, question.run_id or ""))
    answer = {
        "items": [_item(near) for near in items],
        "model": question.model,
        "weights": {"fingerprint": question.weights},
        "per": wanted.per,
        "query": _query(question),
        "left_out": {"other_weights": left_out.other_weights, "other_per": left_out.other_per},
        "next_page_token": token,
    }
    return answer, headers


def _query(question: Question) -> dict[str, Any]:
    names = ("video_id", "run_id", "seq", "vectors")
    return {name: getattr(question, name) for name in names} | _ends(question.range)


def _item(near: Near) -> dict[str, Any]:
    urls = video_record(near.video)["urls"]
    name = near.keyframes and f"/v1/artifacts/{near.keyframes}/members/shot_{near.seq:04d}_img_1.jpg"
    return {
        "video": {"id": near.video.id, "name": near.video.name, "urls": urls},
        "run_id": near.run_id,
        "seq": near.seq,
        **_ends(near.range),
        "similarity": round(near.similarity, 6),
        "urls": {"thumbnail": urls["thumbnail"] + _middle(near.range), "keyframe": name},
    }


def _middle(span: TimeRange | None) -> str:
    return f"?at={float((span.start.seconds + span.end.seconds) / 2):.6f}" if span else ""


def _ends(span: TimeRange | None) -> dict[str, Any]:
    return {"start": span.start.record() if span else None, "end": span.end.record() if span else None}
