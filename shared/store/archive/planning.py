"""Which films a piece of work is about, what is left to do for each, and what it will take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from shared import catalog
from shared.store.plan import Analysis, fingerprint, run_key, whole
from shared.store.transaction import verb
from shared.tables import LIVE_OR_DONE, JobRow, PlaceRow, RunRow, SourceRow, VideoRow
from shared.values import RunState
from shared.values.archive.batches import Selection, Work

CHUNK = 5_000
MEASURED = 200
"""Finished runs that a rate is measured on: the latest."""

RATES = text(
    """
    SELECT model, device, precision, count(*) AS runs,
           percentile_cont(0.1) WITHIN GROUP (ORDER BY cost) AS low,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY cost) AS usual,
           percentile_cont(0.9) WITHIN GROUP (ORDER BY cost) AS high
    FROM (
        SELECT r.model, r.device, r.precision,
               (SELECT sum((s->>'seconds')::float) FROM jsonb_array_elements(r.stages) s)
                   / (v.probe->>'duration')::float AS cost,
               row_number() OVER (PARTITION BY r.model, r.device ORDER BY r.finished_at DESC) AS age
        FROM runs r JOIN videos v ON v.id = r.video_id
        WHERE r.state = 'done' AND r.model IN :models AND (v.probe->>'duration')::float > 0
          AND EXISTS (SELECT 1 FROM jsonb_array_elements(r.stages) s
                      WHERE s->>'name' = 'encode' AND (s->>'of')::float > 0)
    ) AS measured
    WHERE age <= :most AND cost IS NOT NULL
    GROUP BY model, device, precision
    ORDER BY model, device, precision
    """
).bindparams(bindparam("models", expanding=True))
"""Seconds of work for a second of film. Runs that read nothing, as another had kept what they need, do not count."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A film that is meant, and the key of the run of each analysis on it."""

    video_id: str
    seconds: float
    reachable: bool
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the runs of one model that are left will take on one device.

    Args:
        runs, film_s: how many, and seconds of film in all.
        device, precision: None where no run has been measured.
        measured: finished runs that this rests on.
        low, usual, high: seconds of work: by the tenth, the half and nine tenths of the runs measured.
    """

    model: str
    runs: int
    film_s: float
    device: str | None = None
    precision: str | None = None
    measured: int = 0
    low: float | None = None
    usual: float | None = None
    high: float | None = None

    def record(self) -> dict[str, Any]:
        """JSON form."""
        seconds = {name: getattr(self, name) for name in ("low", "usual", "high")}
        return {
            "model": self.model,
            "runs": self.runs,
            "film_s": round(self.film_s, 3),
            "device": self.device,
            "precision": self.precision,
            "measured_runs": self.measured,
            "seconds": None if self.usual is None else {name: round(value, 1) for name, value in seconds.items()},
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a piece of work comes to.

    Args:
        meant: ids of the films that are meant, in order of their arrival.
        todo: those of them with something left to do.
        film_s: seconds of film that are meant.
        todo_s: seconds of film that have something left to do.
        skipped: films that are meant and left out, by reason: `done`, `running`, `unreachable`.
        estimates: what the runs will take.
    """

    meant: tuple[str, ...]
    todo: tuple[str, ...]
    film_s: float
    todo_s: float
    skipped: Mapping[str, int]
    estimates: tuple[Estimate, ...] = field(default=())

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "selected": {"videos": len(self.meant), "hours": round(self.film_s / 3600, 3)},
            "to_do": {"videos": len(self.todo), "hours": round(self.todo_s / 3600, 3)},
            "skipped": dict(self.skipped),
            "estimates": [estimate.record() for estimate in self.estimates],
        }


@verb
def dry_run(session: Session, work: Work) -> Plan:
    """What it would come to; nothing is written."""
    return plan(session, work)


@verb
def unknown(session: Session, selection: Selection) -> tuple[list[str], list[str]]:
    """Sources and videos that the selection names and that are not there."""
    sources = set(session.scalars(select(SourceRow.id).where(SourceRow.id.in_(selection.sources))))
    videos = set(session.scalars(select(VideoRow.id).where(VideoRow.id.in_(selection.videos))))
    return (
        [source for source in selection.sources if source not in sources],
        [video for video in selection.videos if video not in videos],
    )


def plan(session: Session, work: Work) -> Plan:
    """The same inside a transaction."""
    analyses = whole(asked(work))
    found = list(candidates(session, work, analyses))
    known = _states(session, (key for one in found for key in one.keys))
    wanted = [place for place, (one, _) in enumerate(analyses) if one.model in dict(work.analyses)]
    verdicts = {one.video_id: _verdict(one, [known.get(one.keys[place]) for place in wanted]) for one in found}
    todo = [one for one in found if verdicts[one.video_id] == "to_do"]
    return Plan(
        meant=tuple(one.video_id for one in found),
        todo=tuple(one.video_id for one in todo),
        film_s=sum(one.seconds for one in found),
        todo_s=sum(one.seconds for one in todo),
        skipped=Counter(verdict for verdict in verdicts.values() if verdict != "to_do"),
        estimates=_estimates(session, [one for one, _ in analyses], todo, known),
    )


def asked(work: Work) -> list[Analysis]:
    """The analyses, checked against the menu of today; InvalidRequest."""
    return [
        Analysis(name, catalog.model(name, f"/analyses/{at}/model").read_params(dict(params), f"/analyses/{at}/params"))
        for at, (name, params) in enumerate(work.analyses)
    ]


def candidates(
    session: Session, work: Work, analyses: Sequence[tuple[Analysis, tuple[int, ...]]]
) -> Iterator[Candidate]:
    """The films that are meant, in order of their arrival."""
    weights = [fingerprint(session, analysis) for analysis, _ in analyses]
    films = list(session.execute(_films(work.selection)))
    told = _Told.of(session, {model for model, _ in work.analyses}, work.selection)
    for video_id, sha256, seconds, stored, present in films:
        keys: list[str] = []
        for (analysis, needs), used in zip(analyses, weights, strict=True):
            keys.append(run_key(sha256, analysis, used, [keys[need] for need in needs]))
        mine = {analysis.model: key for (analysis, _), key in zip(analyses, keys, strict=True)}
        if any(told.means(work.selection, video_id, model, mine[model]) for model, _ in work.analyses):
            yield Candidate(video_id, seconds, stored or present, tuple(keys))


def _films(selection: Selection) -> Select[Any]:
    """Id, hash, seconds, whether its bytes are in the store, whether they lie in a place."""
    present = exists().where(PlaceRow.video_id == VideoRow.id, PlaceRow.state == "present")
    seconds = VideoRow.probe["duration"].as_float()
    statement = select(VideoRow.id, VideoRow.sha256, seconds, VideoRow.stored, present)
    named: list[ColumnElement[bool]] = []
    if selection.videos:
        named.append(VideoRow.id.in_(selection.videos))
    if selection.sources:
        named.append(exists().where(PlaceRow.video_id == VideoRow.id, PlaceRow.source_id.in_(selection.sources)))
    if named:
        statement = statement.where(or_(*named))
    if selection.labels:
        statement = statement.where(_labelled(dict(selection.labels)))
    return statement.order_by(VideoRow.created_at, VideoRow.id)


def _labelled(labels: dict[str, str]) -> Any:
    lying = exists().where(
        and_(PlaceRow.video_id == VideoRow.id, SourceRow.id == PlaceRow.source_id, SourceRow.labels.contains(labels))
    )
    return or_(lying, exists().where(JobRow.video_id == VideoRow.id, JobRow.labels.contains(labels)))


@dataclass(frozen=True, slots=True)
class _Told:
    """What the ledger says of the runs of some models: which films have a finished one, how the last one ended."""

    done: frozenset[tuple[str, str]]
    keys: frozenset[str]
    last: Mapping[tuple[str, str], tuple[str, str | None]]

    @staticmethod
    def of(session: Session, models: Iterable[str], selection: Selection) -> _Told:
        if selection.only == "all":
            return _Told(frozenset(), frozenset(), {})
        mine = RunRow.model.in_(list(models))
        done = session.execute(
            select(RunRow.video_id, RunRow.model, RunRow.key).where(mine, RunRow.state == RunState.DONE)
        ).all()
        latest = (
            select(RunRow.video_id, RunRow.model, RunRow.state, RunRow.error["code"].as_string())
            .where(mine)
            .ext(distinct_on(RunRow.video_id, RunRow.model))
            .order_by(RunRow.video_id, RunRow.model, RunRow.created_at.desc())
        )
        last = {(row[0], row[1]): (row[2], row[3]) for row in session.execute(latest)}
        return _Told(frozenset((row[0], row[1]) for row in done), frozenset(row[2] for row in done), last)

    def means(self, selection: Selection, video_id: str, model: str, key: str) -> bool:
        """Whether the selection means this model on this film."""
        processed = (video_id, model) in self.done
        match selection.only:
            case "all":
                return True
            case "missing":
                return not processed
            case "outdated":
                return processed and key not in self.keys
            case "missing_or_outdated":
                return key not in self.keys
            case "failed":
                state, code = self.last.get((video_id, model), ("", None))
                return state == RunState.FAILED and selection.code in {None, code}


def _states(session: Session, keys: Iterable[str]) -> dict[str, str]:
    """State of the live or finished run of each key that has one."""
    wanted = list(dict.fromkeys(keys))
    found: dict[str, str] = {}
    for first in range(0, len(wanted), CHUNK):
        statement = select(RunRow.key, RunRow.state).where(
            RunRow.key.in_(wanted[first : first + CHUNK]), text(LIVE_OR_DONE)
        )
        found |= {row[0]: row[1] for row in session.execute(statement)}
    return found


def _verdict(film: Candidate, states: Sequence[str | None]) -> str:
    if all(state == RunState.DONE for state in states):
        return "done"
    if all(state is not None for state in states):
        return "running"
    return "to_do" if film.reachable else "unreachable"


def _estimates(
    session: Session, analyses: Sequence[Analysis], todo: Sequence[Candidate], known: Mapping[str, str]
) -> tuple[Estimate, ...]:
    """By model and device, of the runs that are not there yet."""
    left: dict[str, list[float]] = defaultdict(list)
    for film in todo:
        for analysis, key in zip(analyses, film.keys, strict=True):
            if known.get(key) != RunState.DONE:
                left[analysis.model].append(film.seconds)
    if not left:
        return ()
    measured = defaultdict(list)
    for row in session.execute(RATES, {"models": list(left), "most": MEASURED}):
        measured[row.model].append(row)
    made = []
    for model, films in left.items():
        runs, film_s = len(films), sum(films)
        made += [
            Estimate(model, runs, film_s, row.device, row.precision, row.runs,
                     row.low * film_s, row.usual * film_s, row.high * film_s)
            for row in measured[model]
        ] or [Estimate(model, runs, film_s)]  # fmt: skip
    return tuple(made)
