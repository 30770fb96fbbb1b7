"""From a request to runs: needs are added, a live or finished twin is shared, and what waits for nothing is queued."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.catalog import CATALOG, Params
from shared.store.workers import find_announced_weights
from shared.tables import LIVE_OR_DONE, JobRunRow, NeedRow, RunRow, VideoRow
from shared.values import RunState, WakeUp, new_id


@dataclass(frozen=True, slots=True)
class Analysis:
    """One model asked for, with its parameters."""

    model: str
    params: Params


@dataclass(slots=True)
class RunPlanner:
    """Finds or makes the runs of one job inside its transaction."""

    session: Session
    video: VideoRow
    priority: int
    max_attempts: int
    wakeups: list[WakeUp] = field(default_factory=list)
    _links: dict[str, JobRunRow] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    def plan_runs(self, job_id: str, analyses: Sequence[Analysis]) -> list[JobRunRow]:
        """Every run of the job, needs before those that need them."""
        for analysis in analyses:
            run_id = self._resolve_run(job_id, analysis, analyses)
            self._links[run_id].asked = True
        return list(self._links.values())

    def _resolve_run(self, job_id: str, analysis: Analysis, requested: Sequence[Analysis]) -> str:
        spec = CATALOG[analysis.model]
        needs = [
            self._resolve_run(job_id, _resolve_need(name, requested), requested)
            for name in spec.needs_for(analysis.params)
        ]
        key = self._compute_key(analysis, needs)
        run_id, reused = self._find_or_create(analysis, key, needs)
        self._keys[run_id] = key
        if run_id not in self._links:
            self._links[run_id] = JobRunRow(
                job_id=job_id, run_id=run_id, position=len(self._links), asked=False, reused=reused
            )
        return run_id

    def _compute_key(self, analysis: Analysis, needs: list[str], *, encode: bool = False) -> str:
        """What makes two runs twins; with `encode`, what makes them encode alike."""
        needed_keys = [self._keys[need] for need in needs]
        return compute_run_key(
            self.video.sha256, analysis, self._resolve_fingerprint(analysis), needed_keys, encode=encode
        )

    def _resolve_fingerprint(self, analysis: Analysis) -> str | None:
        return resolve_fingerprint(self.session, analysis)

    def _find_or_create(self, analysis: Analysis, key: str, needs: list[str]) -> tuple[str, bool]:
        while True:
            created_id = self._create_run(analysis, key, needs)
            if created_id:
                return created_id, False
            shared_id = self._share_twin(key)
            if shared_id:
                return shared_id, True
            # The twin failed or was cancelled between the two statements: the key is free again.

    def _create_run(self, analysis: Analysis, key: str, needs: list[str]) -> str | None:
        statement = (
            insert(RunRow)
            .values(
                id=new_id("run"),
                video_id=self.video.id,
                model=analysis.model,
                params=analysis.params.model_dump(mode="json"),
                weights=self._resolve_fingerprint(analysis),
                key=key,
                encode_key=self._compute_key(analysis, needs, encode=True),
                state=RunState.WAITING,
                priority=self.priority,
                max_attempts=self.max_attempts,
            )
            .on_conflict_do_nothing(index_elements=[RunRow.key], index_where=text(LIVE_OR_DONE))
            .returning(RunRow.id)
        )
        run_id = self.session.scalars(statement).one_or_none()
        if run_id is not None:
            self._add_needs(run_id, analysis.model, needs)
        return run_id

    def _add_needs(self, run_id: str, model: str, needs: list[str]) -> None:
        """Count the needs that are not done; locked, so that one that ends meanwhile sees our rows and counts down."""
        locked = select(RunRow.state).where(RunRow.id.in_(needs)).order_by(RunRow.id).with_for_update()
        waits = sum(state != RunState.DONE for state in self.session.scalars(locked))
        self.session.add_all(NeedRow(run_id=run_id, needs_run_id=need) for need in needs)
        values = {"waits": waits} if waits else {"state": RunState.QUEUED, "dispatched_at": func.now()}
        self.session.execute(update(RunRow).where(RunRow.id == run_id).values(values))
        if not waits:
            self.wakeups.append(WakeUp(run_id, model, self.priority, self.video.id))

    def _share_twin(self, key: str) -> str | None:
        """The live or finished twin: kept alive if it was about to be cancelled, hurried if this job is more urgent."""
        statement = select(RunRow).where(RunRow.key == key, text(LIVE_OR_DONE)).with_for_update()
        row = self.session.scalars(statement).one_or_none()
        if row is None:
            return None
        row.cancel_requested = False
        if row.priority < self.priority:
            row.priority = self.priority
            if row.state == RunState.QUEUED:
                self.wakeups.append(WakeUp(row.id, row.model, row.priority, row.video_id))
        self.session.flush()
        return row.id


def resolve_fingerprint(session: Session, analysis: Analysis) -> str | None:
    """Pinned in the catalog, or, for weights that an operator imported, what the workers announce."""
    weights = CATALOG[analysis.model].weights_for(analysis.params)
    return (weights.sha256 or find_announced_weights(session, analysis.model)) if weights else None


def compute_run_key(
    sha256: str, analysis: Analysis, weights: str | None, needed_keys: Sequence[str], *, encode: bool = False
) -> str:
    """What makes two runs twins: video, model, weights, parameters, and the keys of the runs that they need."""
    params = analysis.params.canonical_json(CATALOG[analysis.model].postprocess_params if encode else ())
    return hashlib.sha256("\n".join([sha256, analysis.model, weights or "", params, *needed_keys]).encode()).hexdigest()


def expand_needs(requested: Sequence[Analysis]) -> list[tuple[Analysis, tuple[int, ...]]]:
    """Every analysis that a job of these comes to, each once, with the places of those that it needs in this list."""
    expanded: list[tuple[Analysis, tuple[int, ...]]] = []

    def add_analysis(analysis: Analysis) -> int:
        needs = tuple(
            add_analysis(_resolve_need(name, requested)) for name in CATALOG[analysis.model].needs_for(analysis.params)
        )
        if (analysis, needs) not in expanded:
            expanded.append((analysis, needs))
        return expanded.index((analysis, needs))

    for analysis in requested:
        add_analysis(analysis)
    return expanded


def _resolve_need(model: str, requested: Sequence[Analysis]) -> Analysis:
    """A need takes the parameters that the request gives for that model, else the defaults."""
    return next((other for other in requested if other.model == model), None) or Analysis(
        model, CATALOG[model].params()
    )
