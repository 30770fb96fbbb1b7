"""The stages of a run as people see them: what runs, how far it is, how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from shared.values import Progress, Stage

STAGE_SHARES = {"plan": 0.01, "encode": 0.92, "infer": 0.02, "postprocess": 0.03, "store": 0.02}
"""Part of a run's progress that each stage stands for."""


class ProgressReporter(Protocol):
    """How a run shows itself and is stopped."""

    def report_progress(self, progress: Progress) -> None:
        """So far; called after each batch. Raises to stop the run."""

    def log_event(self, action: str, **facts: Any) -> None:
        """Something worth a line in the log."""


@dataclass(slots=True)
class StageTracker:
    """The stages of one run: times them and reports."""

    reporter: ProgressReporter
    stages: dict[str, Stage] = field(default_factory=lambda: {name: Stage(name) for name in STAGE_SHARES})
    _stage_started: float = 0.0

    @contextmanager
    def track_stage(self, name: str, total: int = 1, unit: str = "step") -> Iterator[None]:
        """One stage, from waiting to done. Interrupted, it stays where it was."""
        self._stage_started = time.monotonic()
        self.stages[name] = Stage(name, "running", of=total, unit=unit)
        self.reporter.report_progress(self.current_progress())
        yield
        finished = replace(self.stages[name], state="done", seconds=self._elapsed_seconds())
        self.stages[name] = replace(finished, done=finished.of or finished.done)

    def advance_stage(self, name: str, done: int) -> None:
        """So many units of the running stage are done: report it."""
        stage = self.stages[name]
        total = stage.of if stage.of is None or done <= stage.of else done
        self.stages[name] = replace(stage, done=done, of=total, seconds=self._elapsed_seconds())
        self.reporter.report_progress(self.current_progress())

    def make_progress_callback(self, name: str) -> Callable[[int, int], None]:
        """How the running stage itself says how many frames of how many are done."""

        def advance_frames(done: int, total: int) -> None:
            self.stages[name] = replace(self.stages[name], of=total, unit="frame")
            self.advance_stage(name, done)

        return advance_frames

    def set_total(self, name: str, total: int) -> None:
        """The number of units is now known for certain."""
        self.stages[name] = replace(self.stages[name], done=total, of=total)

    def current_progress(self) -> Progress:
        """As the ledger shows it."""
        fractions = (STAGE_SHARES[stage.name] * _stage_fraction(stage) for stage in self.stages.values())
        return Progress(tuple(self.stages.values()), min(1.0, sum(fractions)))

    def _elapsed_seconds(self) -> float:
        return time.monotonic() - self._stage_started


def _stage_fraction(stage: Stage) -> float:
    if stage.state == "done":
        return 1.0
    return min(1.0, stage.done / stage.of) if stage.of else 0.0
