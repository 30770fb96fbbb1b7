"""Selection of videos for a batch: which videos match, what is left to do for each, and an estimate of the time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from shared import catalog
from shared.store.jobs.planner import Analysis, compute_run_key, expand_needs, resolve_fingerprint
from shared.store.transaction import transactional
from shared.tables import LIVE_OR_DONE, JobRow, RunRow, SourceFileRow, SourceRow, VideoRow
from shared.values import RunState
from shared.values.batches import Selection, Workload

CHUNK = 5_000
MAX_MEASURED_RUNS = 200
"""Finished runs that a rate is measured on: the latest."""

COST_RATES = text(
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
"""Seconds of work for a second of video. Runs that read nothing, as another had kept what they need, do not count."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A selected video, and the run key of each analysis on it."""

    video_id: str
    seconds: float
    reachable: bool
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """Estimated time of the remaining runs of one model on one device.

    Args:
        runs, video_s: how many, and seconds of video in all.
        device, precision: None where no run has been measured.
        measured: finished runs that this rests on.
        low, usual, high: seconds of work: by the tenth, the half and nine tenths of the runs measured.
    """

    model: str
    runs: int
    video_s: float
    device: str | None = None
    precision: str | None = None
    measured: int = 0
    low: float | None = None
    usual: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        seconds = {name: getattr(self, name) for name in ("low", "usual", "high")}
        return {
            "model": self.model,
            "runs": self.runs,
            "video_s": round(self.video_s, 3),
            "device": self.device,
            "precision": self.precision,
            "measured_runs": self.measured,
            "seconds": None if self.usual is None else {name: round(value, 1) for name, value in seconds.items()},
        }


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The result of a dry run.

    Args:
        selected: ids of the videos that are meant, in order of their arrival.
        to_do: those of them with something left to do.
        video_s: seconds of video that are meant.
        to_do_s: seconds of video that have something left to do.
        skipped: videos that are meant and left out, by reason: `done`, `running`, `unreachable`.
        estimates: what the runs will take.
    """

    selected: tuple[str, ...]
    to_do: tuple[str, ...]
    selected_s: float
    to_do_s: float
    skipped: Mapping[str, int]
    estimates: tuple[ModelEstimate, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "selected": {"videos": len(self.selected), "hours": round(self.selected_s / 3600, 3)},
            "to_do": {"videos": len(self.to_do), "hours": round(self.to_do_s / 3600, 3)},
            "skipped": dict(self.skipped),
            "estimates": [estimate.to_dict() for estimate in self.estimates],
        }


@transactional
def dry_run(session: Session, work: Workload) -> BatchPlan:
    """Compute what a batch would do; nothing is written."""
    return plan_in(session, work)


@transactional
def find_unknown_ids(session: Session, selection: Selection) -> tuple[list[str], list[str]]:
    """Find the sources and videos that a selection names and that do not exist."""
    sources = set(session.scalars(select(SourceRow.id).where(SourceRow.id.in_(selection.sources))))
    videos = set(session.scalars(select(VideoRow.id).where(VideoRow.id.in_(selection.videos))))
    return (
        [source for source in selection.sources if source not in sources],
        [video for video in selection.videos if video not in videos],
    )


def plan_in(session: Session, work: Workload) -> BatchPlan:
    """Compute a plan inside the caller's transaction."""
    analyses = expand_needs(parse_analyses(work))
    selected = list(iter_candidates(session, work, analyses))
    run_states = _load_run_states(session, (key for candidate in selected for key in candidate.keys))
    requested = [place for place, (candidate, _) in enumerate(analyses) if candidate.model in dict(work.analyses)]
    verdicts = {
        candidate.video_id: _classify_candidate(
            candidate, [run_states.get(candidate.keys[place]) for place in requested]
        )
        for candidate in selected
    }
    to_do = [candidate for candidate in selected if verdicts[candidate.video_id] == "to_do"]
    return BatchPlan(
        selected=tuple(candidate.video_id for candidate in selected),
        to_do=tuple(candidate.video_id for candidate in to_do),
        selected_s=sum(candidate.seconds for candidate in selected),
        to_do_s=sum(candidate.seconds for candidate in to_do),
        skipped=Counter(verdict for verdict in verdicts.values() if verdict != "to_do"),
        estimates=_estimate_runs(session, [candidate for candidate, _ in analyses], to_do, run_states),
    )


def parse_analyses(work: Workload) -> list[Analysis]:
    """Check stored analyses against the present catalog; InvalidRequest."""
    return [
        Analysis(
            name,
            catalog.get_model_spec(name, f"/analyses/{at}/model").read_params(dict(params), f"/analyses/{at}/params"),
        )
        for at, (name, params) in enumerate(work.analyses)
    ]


def iter_candidates(
    session: Session, work: Workload, analyses: Sequence[tuple[Analysis, tuple[int, ...]]]
) -> Iterator[Candidate]:
    """Iterate over the selected videos, in order of creation."""
    weights = [resolve_fingerprint(session, analysis) for analysis, _ in analyses]
    videos = list(session.execute(_selected_videos_query(work.selection)))
    history = _RunHistory.load_history(session, {model for model, _ in work.analyses}, work.selection)
    for video_id, sha256, seconds, stored, present in videos:
        keys: list[str] = []
        for (analysis, needs), weights_fingerprint in zip(analyses, weights, strict=True):
            keys.append(compute_run_key(sha256, analysis, weights_fingerprint, [keys[need] for need in needs]))
        key_by_model = {analysis.model: key for (analysis, _), key in zip(analyses, keys, strict=True)}
        if any(
            history.matches_selection(work.selection, video_id, model, key_by_model[model])
            for model, _ in work.analyses
        ):
            yield Candidate(video_id, seconds, stored or present, tuple(keys))


def _selected_videos_query(selection: Selection) -> Select[Any]:
    """Id, hash, seconds, whether its bytes are in the store, whether they lie in a place."""
    present = exists().where(SourceFileRow.video_id == VideoRow.id, SourceFileRow.state == "present")
    seconds = VideoRow.probe["duration"].as_float()
    statement = select(VideoRow.id, VideoRow.sha256, seconds, VideoRow.stored, present)
    named: list[ColumnElement[bool]] = []
    if selection.videos:
        named.append(VideoRow.id.in_(selection.videos))
    if selection.sources:
        named.append(
            exists().where(SourceFileRow.video_id == VideoRow.id, SourceFileRow.source_id.in_(selection.sources))
        )
    if named:
        statement = statement.where(or_(*named))
    if selection.labels:
        statement = statement.where(_has_labels(dict(selection.labels)))
    return statement.order_by(VideoRow.created_at, VideoRow.id)


def _has_labels(labels: dict[str, str]) -> Any:
    in_labelled_source = exists().where(
        and_(
            SourceFileRow.video_id == VideoRow.id,
            SourceRow.id == SourceFileRow.source_id,
            SourceRow.labels.contains(labels),
        )
    )
    return or_(in_labelled_source, exists().where(JobRow.video_id == VideoRow.id, JobRow.labels.contains(labels)))


@dataclass(frozen=True, slots=True)
class _RunHistory:
    """Runs of some models by video: which videos have a finished run, and how the last one ended."""

    done: frozenset[tuple[str, str]]
    keys: frozenset[str]
    last: Mapping[tuple[str, str], tuple[str, str | None]]

    @staticmethod
    def load_history(session: Session, models: Iterable[str], selection: Selection) -> _RunHistory:
        if selection.only == "all":
            return _RunHistory(frozenset(), frozenset(), {})
        of_models = RunRow.model.in_(list(models))
        done = session.execute(
            select(RunRow.video_id, RunRow.model, RunRow.key).where(of_models, RunRow.state == RunState.DONE)
        ).all()
        latest = (
            select(RunRow.video_id, RunRow.model, RunRow.state, RunRow.error["code"].as_string())
            .where(of_models)
            .ext(distinct_on(RunRow.video_id, RunRow.model))
            .order_by(RunRow.video_id, RunRow.model, RunRow.created_at.desc())
        )
        last = {(row[0], row[1]): (row[2], row[3]) for row in session.execute(latest)}
        return _RunHistory(frozenset((row[0], row[1]) for row in done), frozenset(row[2] for row in done), last)

    def matches_selection(self, selection: Selection, video_id: str, model: str, key: str) -> bool:
        """Whether the selection means this model on this video."""
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


def _load_run_states(session: Session, keys: Iterable[str]) -> dict[str, str]:
    """State of the live or finished run of each key that has one."""
    unique_keys = list(dict.fromkeys(keys))
    run_states: dict[str, str] = {}
    for first in range(0, len(unique_keys), CHUNK):
        statement = select(RunRow.key, RunRow.state).where(
            RunRow.key.in_(unique_keys[first : first + CHUNK]), text(LIVE_OR_DONE)
        )
        run_states |= {row[0]: row[1] for row in session.execute(statement)}
    return run_states


def _classify_candidate(candidate: Candidate, states: Sequence[str | None]) -> str:
    if all(state == RunState.DONE for state in states):
        return "done"
    if all(state is not None for state in states):
        return "running"
    return "to_do" if candidate.reachable else "unreachable"


def _estimate_runs(
    session: Session, analyses: Sequence[Analysis], to_do: Sequence[Candidate], run_states: Mapping[str, str]
) -> tuple[ModelEstimate, ...]:
    """By model and device, of the runs that are not there yet."""
    remaining: dict[str, list[float]] = defaultdict(list)
    for candidate in to_do:
        for analysis, key in zip(analyses, candidate.keys, strict=True):
            if run_states.get(key) != RunState.DONE:
                remaining[analysis.model].append(candidate.seconds)
    if not remaining:
        return ()
    measured = defaultdict(list)
    for row in session.execute(COST_RATES, {"models": list(remaining), "most": MAX_MEASURED_RUNS}):
        measured[row.model].append(row)
    estimates = []
    for model, durations in remaining.items():
        runs, video_s = len(durations), sum(durations)
        estimates += [
            ModelEstimate(model, runs, video_s, row.device, row.precision, row.runs,
                     row.low * video_s, row.usual * video_s, row.high * video_s)
            for row in measured[model]
        ] or [ModelEstimate(model, runs, video_s)]  # fmt: skip
    return tuple(estimates)
