"""What changed: between two runs of a video, and in sum over a batch."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field

from api.errors import Query, Record, bad_query, page, problems, read_token
from api.results.routes import FingerprintRecord, MomentRecord
from api.service.health import services
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.store import videos
from shared.store.archive import batches, changes
from shared.store.archive.changes import Change, Compared, Pair
from shared.values import Result, Run, stamp
from shared.values.archive.diff import Pairing, Sums

bp = APIBlueprint("changes", __name__, url_prefix="/v1", tag="Runs")

CHUNK = 50
"""Films of a batch that are read at a time."""
BUDGET_S = 10.0
"""After so long an answer says how far it has come; asked again, it goes on from there."""
MOST = 20
"""Films that are named as those that changed most."""
KEPT = 50_000
"""Pairs of runs whose numbers are kept: finished runs do not change."""

ChangeName = Literal["kept", "moved", "merged", "split", "regrouped", "added", "gone"]


class DiffQuery(Query):
    """What to compare."""

    against: str | None = Field(None, description="The older run; absent: the one that this run has superseded.")
    kind: str | None = Field(None, description="Of results; absent: each that lies in time one after the other.")


class BatchDiffQuery(Query):
    """Which films to list."""

    limit: int = Field(50, ge=0, le=500)
    page_token: str | None = None


class SideRecord(Record):
    """One of two runs."""

    run_id: str
    model: str
    params: dict[str, Any]
    weights: FingerprintRecord | None
    finished_at: datetime | None


class StretchRecord(Record):
    """A result on one side."""

    seq: int
    start: MomentRecord
    end: MomentRecord = Field(description="Exclusive.")
    score: float | None


class MovedRecord(Record):
    """By how many frames; later is positive."""

    start_frames: int
    end_frames: int


class PairingRecord(Record):
    """Results that belong together: they share half of the shorter one or more."""

    change: ChangeName
    before: list[StretchRecord]
    after: list[StretchRecord]
    moved_by: MovedRecord | None


class MovedFramesRecord(Record):
    """Frames by which the moved ones have moved: of each the larger of start and end, unsigned."""

    median: float
    largest: int


class SumsRecord(Record):
    """What changed, in numbers."""

    before: int
    after: int
    changes: dict[ChangeName, int]
    moved_frames: MovedFramesRecord | None = Field(description="Null where none has moved.")


class KindRecord(SumsRecord):
    """Results of one kind in two runs."""

    kind: str
    pairings: list[PairingRecord]


class DiffRecord(Record):
    """What changed between two runs of a video."""

    video_id: str
    run: SideRecord
    against: SideRecord
    kinds: list[KindRecord]


class FilmChange(Record):
    """What a batch has done to one video by one of its analyses."""

    position: int
    video_id: str
    name: str
    model: str | None = Field(description="Null while the video has no job.")
    run_id: str | None
    against: str | None
    fate: Literal["compared", "unchanged", "first", "unfinished", "forgotten"]
    kinds: dict[str, SumsRecord]


class BatchDiff(Record):
    """What a batch has changed: the sums of all its videos, and some videos one by one."""

    batch_id: str
    complete: bool = Field(description="False: the time was over. Asked again, it comes further.")
    films: dict[Literal["compared", "unchanged", "first", "unfinished", "forgotten"], int] = Field(
        description="Analyses of videos. `compared`: with the run before; `unchanged`: that run was shared; `first`: "
        "there was none; `forgotten`: it was deleted."
    )
    kinds: dict[str, SumsRecord] = Field(description="By kind of result, over all that are compared.")
    most_changed: list[FilmChange] = Field(description="Those with the most results that were not kept; 20 at most.")
    items: list[FilmChange]
    next_page_token: str | None


@bp.get("/runs/<run_id>/diff")
@bp.input(DiffQuery, location="query", arg_name="query")
@bp.output(DiffRecord)
@bp.doc(responses=problems(InvalidRequest, NotFound, Conflict))
def of_runs(run_id: str, query: DiffQuery) -> dict[str, Any]:
    """Compare two finished runs of a video: shots, scenes or highlights that were kept, moved, merged, split.

    Results of one kind must not overlap. 409 unless both runs are done.
    """
    try:
        found = changes.between(services().engine, run_id, query.against, query.kind)
    except InvalidRequest as error:
        (fault,) = error.errors
        raise bad_query(fault.pointer[1:], fault.code, fault.detail) from None
    return {
        "video_id": found.run.video_id,
        "run": _side(found.run),
        "against": _side(found.against),
        "kinds": [_kind(compared) for compared in found.kinds],
    }


@bp.get("/batches/<batch_id>/diff")
@bp.input(BatchDiffQuery, location="query", arg_name="query")
@bp.output(BatchDiff)
@bp.doc(responses=problems(InvalidRequest, NotFound))
def of_batch(batch_id: str, query: BatchDiffQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """What a batch has changed, in sum and video by video: its runs against those that were current before.

    A large batch is compared in pages; while `complete` is false, ask again for the rest.
    """
    after = read_token("changes", query.page_token, (int,))
    told = whole(batch_id)
    items, token, headers = _page(batch_id, after[0] if after else -1, query.limit)
    most = _films([(change, sums) for _, change, sums in told.most])
    return {
        "batch_id": batch_id,
        **told.record(),
        "most_changed": most,
        "items": items,
        "next_page_token": token,
    }, headers


@dataclass(slots=True)
class Whole:
    """What a batch has changed, as far as it is known.

    Args:
        complete: whether all of its films are in.
        films: analyses of films by what became of them.
        kinds: what changed in numbers, by kind of result.
        most: (results that were not kept, film, its numbers) of the films with the most of them.
    """

    complete: bool = False
    films: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Sums] = field(default_factory=dict)
    most: list[tuple[int, Change, dict[str, Sums]]] = field(default_factory=list)

    def add(self, found: Sequence[Change], numbers: Sequence[dict[str, Sums]]) -> None:
        """Some films more."""
        self.films.update(change.fate for change in found)
        for change, one in zip(found, numbers, strict=True):
            for kind, sums in one.items():
                self.kinds[kind] = self.kinds.get(kind, Sums()) + sums
            if other := sum(sums.changes.total() - sums.changes["kept"] for sums in one.values()):
                self.most.append((other, change, one))
        self.most = sorted(self.most, key=lambda one: (-one[0], one[1].position))[:MOST]

    def record(self) -> dict[str, Any]:
        """JSON form."""
        kinds = {kind: sums.record() for kind, sums in self.kinds.items()}
        return {"complete": self.complete, "films": dict(self.films), "kinds": kinds}


def whole(batch_id: str, budget_s: float = BUDGET_S) -> Whole:
    """What a batch has changed, as far as the time lets it come; asked again, it comes further. NotFound."""
    told, until = Whole(), time.monotonic() + budget_s
    for chunk in _chunks(batch_id):
        told.add(chunk, _numbers(chunk))
        if time.monotonic() > until:
            return told
    told.complete = True
    return told


class _Known:
    """The numbers of pairs of runs, the latest that were asked for."""

    def __init__(self) -> None:
        self._lock, self._sums = Lock(), OrderedDict[Pair, dict[str, Sums]]()

    def get(self, pair: Pair) -> dict[str, Sums] | None:
        """Of a pair; None: not known."""
        with self._lock:
            return self._sums.get(pair)

    def keep(self, pair: Pair, sums: dict[str, Sums]) -> None:
        """Let the oldest go where there are too many."""
        with self._lock:
            self._sums[pair] = sums
            while len(self._sums) > KEPT:
                self._sums.popitem(last=False)


_known = _Known()


def _chunks(batch_id: str) -> Iterator[list[Change]]:
    """What became of the films of a batch, some at a time."""
    after = -1
    while found := changes.of_batch(services().engine, batch_id, limit=CHUNK, after=after):
        yield [change for film in found for change in film]
        after = found[-1][0].position


def _numbers(found: Sequence[Change]) -> list[dict[str, Sums]]:
    """What changed by each of these, where there is something to compare with."""
    new = [(pair, changes.kinds_of(change.model or "")) for change in found if (pair := change.pair)
           and _known.get(pair) is None]  # fmt: skip
    if new:
        for (pair, _), sums in zip(new, changes.sums(services().engine, new), strict=True):
            _known.keep(pair, sums)
    return [(_known.get(change.pair) or {}) if change.pair else {} for change in found]


def _page(batch_id: str, after: int, limit: int) -> tuple[list[dict[str, Any]], str | None, dict[str, str]]:
    """Some films one by one; none where none are asked for."""
    if not limit:
        batches.get(services().engine, batch_id)
        return [], None, {}
    found = changes.of_batch(services().engine, batch_id, limit=limit + 1, after=after)
    films, token, headers = page("changes", found, limit, lambda film: (film[0].position,))
    listed = [change for film in films for change in film]
    return _films(list(zip(listed, _numbers(listed), strict=True))), token, headers


def _films(listed: Sequence[tuple[Change, dict[str, Sums]]]) -> list[dict[str, Any]]:
    """Films one by one, with their names and numbers."""
    known = videos.several(services().engine, {change.video_id for change, _ in listed})
    names = {video_id: video.name for video_id, video in known.items()}
    return [_film(change, sums, names) for change, sums in listed]


def _film(change: Change, sums: dict[str, Sums], names: dict[str, str]) -> dict[str, Any]:
    facts = {name: getattr(change, name) for name in ("position", "video_id", "model", "run_id", "against", "fate")}
    kinds = {kind: one.record() for kind, one in sums.items()}
    return facts | {"name": names.get(change.video_id, ""), "kinds": kinds}


def _side(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.id,
        "model": run.model,
        "params": run.params,
        "weights": {"fingerprint": run.weights} if run.weights else None,
        "finished_at": stamp(run.finished_at),
    }


def _kind(compared: Compared) -> dict[str, Any]:
    pairings = [_pairing(pairing, compared) for pairing in compared.pairings]
    return {"kind": compared.kind, **compared.sums.record(), "pairings": pairings}


def _pairing(pairing: Pairing, compared: Compared) -> dict[str, Any]:
    return pairing.record() | {
        "before": [_stretch(compared.before[at]) for at in pairing.before],
        "after": [_stretch(compared.after[at]) for at in pairing.after],
    }


def _stretch(result: Result) -> dict[str, Any]:
    whole = result.record()
    return {name: whole[name] for name in StretchRecord.model_fields}
