"""From a request to runs: needs are added, a live or finished twin is shared, and what waits for nothing is queued."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.catalog import MENU, Params
from shared.store.workers import announced
from shared.tables import LIVE_OR_DONE, JobRunRow, NeedRow, RunRow, VideoRow
from shared.values import RunState, Wake, new_id


@dataclass(frozen=True, slots=True)
class Analysis:
    """One model asked for, with its parameters."""

    model: str
    params: Params


@dataclass(slots=True)
class Planner:
    """Finds or makes the runs of one job inside its transaction."""

    session: Session
    video: VideoRow
    priority: int
    max_attempts: int
    wakes: list[Wake] = field(default_factory=list)
    _links: dict[str, JobRunRow] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    def links(self, job_id: str, analyses: Sequence[Analysis]) -> list[JobRunRow]:
        """Every run of the job, needs before those that need them."""
        for analysis in analyses:
            run_id = self._resolve(job_id, analysis, analyses)
            self._links[run_id].asked = True
        return list(self._links.values())

    def _resolve(self, job_id: str, analysis: Analysis, asked: Sequence[Analysis]) -> str:
        spec = MENU[analysis.model]
        needs = [self._resolve(job_id, _needed(name, asked), asked) for name in spec.needs_for(analysis.params)]
        key = self._key(analysis, needs)
        run_id, reused = self._find_or_make(analysis, key, needs)
        self._keys[run_id] = key
        if run_id not in self._links:
            self._links[run_id] = JobRunRow(
                job_id=job_id, run_id=run_id, position=len(self._links), asked=False, reused=reused
            )
        return run_id

    def _key(self, analysis: Analysis, needs: list[str], *, encode: bool = False) -> str:
        """What makes two runs twins; with `encode`, what makes them encode alike."""
        below = [self._keys[need] for need in needs]
        return run_key(self.video.sha256, analysis, self._fingerprint(analysis), below, encode=encode)

    def _fingerprint(self, analysis: Analysis) -> str | None:
        return fingerprint(self.session, analysis)

    def _find_or_make(self, analysis: Analysis, key: str, needs: list[str]) -> tuple[str, bool]:
        while True:
            made = self._make(analysis, key, needs)
            if made:
                return made, False
            found = self._share(key)
            if found:
                return found, True
            # The twin failed or was cancelled between the two statements: the key is free again.

    def _make(self, analysis: Analysis, key: str, needs: list[str]) -> str | None:
        statement = (
            insert(RunRow)
            .values(
                id=new_id("run"),
                video_id=self.video.id,
                model=analysis.model,
                params=analysis.params.model_dump(mode="json"),
                weights=self._fingerprint(analysis),
                key=key,
                encode_key=self._key(analysis, needs, encode=True),
                state=RunState.WAITING,
                priority=self.priority,
                max_attempts=self.max_attempts,
            )
            .on_conflict_do_nothing(index_elements=[RunRow.key], index_where=text(LIVE_OR_DONE))
            .returning(RunRow.id)
        )
        run_id = self.session.scalars(statement).one_or_none()
        if run_id is not None:
            self._wait_for(run_id, analysis.model, needs)
        return run_id

    def _wait_for(self, run_id: str, model: str, needs: list[str]) -> None:
        """Count the needs that are not done; locked, so that one that ends meanwhile sees our rows and counts down."""
        locked = select(RunRow.state).where(RunRow.id.in_(needs)).order_by(RunRow.id).with_for_update()
        waits = sum(state != RunState.DONE for state in self.session.scalars(locked))
        self.session.add_all(NeedRow(run_id=run_id, needs_run_id=need) for need in needs)
        values = {"waits": waits} if waits else {"state": RunState.QUEUED, "dispatched_at": func.now()}
        self.session.execute(update(RunRow).where(RunRow.id == run_id).values(values))
        if not waits:
            self.wakes.append(Wake(run_id, model, self.priority, self.video.id))

    def _share(self, key: str) -> str | None:
        """The live or finished twin: kept alive if it was about to be cancelled, hurried if this job is more urgent."""
        statement = select(RunRow).where(RunRow.key == key, text(LIVE_OR_DONE)).with_for_update()
        row = self.session.scalars(statement).one_or_none()
        if row is None:
            return None
        row.cancel_requested = False
        if row.priority < self.priority:
            row.priority = self.priority
            if row.state == RunState.QUEUED:
                self.wakes.append(Wake(row.id, row.model, row.priority, row.video_id))
        self.session.flush()
        return row.id


def fingerprint(session: Session, analysis: Analysis) -> str | None:
    """Pinned in the menu, or, for weights that an operator imported, what the workers announce."""
    weights = MENU[analysis.model].weights_for(analysis.params)
    return (weights.sha256 or announced(session, analysis.model)) if weights else None


def run_key(sha256: str, analysis: Analysis, weights: str | None, below: Sequence[str], *, encode: bool = False) -> str:
    """What makes two runs twins: film, model, weights, parameters, and the keys of the runs that they need."""
    params = analysis.params.canonical(MENU[analysis.model].regroups if encode else ())
    return hashlib.sha256("\n".join([sha256, analysis.model, weights or "", params, *below]).encode()).hexdigest()


def whole(asked: Sequence[Analysis]) -> list[tuple[Analysis, tuple[int, ...]]]:
    """Every analysis that a job of these comes to, each once, with the places of those that it needs in this list."""
    found: list[tuple[Analysis, tuple[int, ...]]] = []

    def place(analysis: Analysis) -> int:
        needs = tuple(place(_needed(name, asked)) for name in MENU[analysis.model].needs_for(analysis.params))
        if (analysis, needs) not in found:
            found.append((analysis, needs))
        return found.index((analysis, needs))

    for analysis in asked:
        place(analysis)
    return found


def _needed(model: str, asked: Sequence[Analysis]) -> Analysis:
    """A need takes the parameters that the request gives for that model, else the defaults."""
    return next((other for other in asked if other.model == model), None) or Analysis(model, MENU[model].params())
