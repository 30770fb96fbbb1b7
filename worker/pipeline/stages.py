"""The stages of a run as users see them: which one runs, how far it is, how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from shared.values import Progress, Stage

STAGE_SHARES = {"plan": 0.01, "encode": 0.92, "infer": 0.02, "postprocess": 0.005, "render": 0.025, "store": 0.02}
"""Fraction of a run's progress per stage; they add up to 1. Decoding and encoding take nearly all of the time."""


class ProgressReporter(Protocol):
    """Receives the progress of a run, and is how a run is stopped."""

    def report_progress(self, progress: Progress) -> None:
        """Take the progress so far; called after each batch. Raises to stop the run."""

    def log_event(self, action: str, **facts: Any) -> None:
        """Log an event of the run."""


@dataclass(slots=True)
class StageTracker:
    """Times the stages of one run and reports their progress."""

    reporter: ProgressReporter
    stages: dict[str, Stage] = field(default_factory=lambda: {name: Stage(name) for name in STAGE_SHARES})
    _stage_started: float = 0.0

    @contextmanager
    def track_stage(self, name: str, total: int = 1, unit: str = "step") -> Iterator[None]:
        """Run one stage, from waiting to done. If it is interrupted, it keeps the progress it had."""
        self._stage_started = time.monotonic()
        self.stages[name] = Stage(name, "running", of=total, unit=unit)
        self.reporter.report_progress(self.current_progress())
        yield
        finished = replace(self.stages[name], state="done", seconds=self._elapsed_seconds())
        self.stages[name] = replace(finished, done=finished.of or finished.done)

    def advance_stage(self, name: str, done: int) -> None:
        """Report that `done` units of the running stage are done."""
        stage = self.stages[name]
        # The total may be an estimate (a nominal frame rate): more units than announced raise it.
        total = stage.of if stage.of is None or done <= stage.of else done
        self.stages[name] = replace(stage, done=done, of=total, seconds=self._elapsed_seconds())
        self.reporter.report_progress(self.current_progress())

    def make_progress_callback(self, name: str) -> Callable[[int, int], None]:
        """Build the callback by which a stage reports its own frames: (done, total)."""

        def advance_frames(done: int, total: int) -> None:
            self.stages[name] = replace(self.stages[name], of=total, unit="frame")
            self.advance_stage(name, done)

        return advance_frames

    def set_total(self, name: str, total: int) -> None:
        """Replace an estimated number of units by the exact one."""
        self.stages[name] = replace(self.stages[name], done=total, of=total)

    def current_progress(self) -> Progress:
        """The progress as it is stored: all stages, and the fraction of the whole run."""
        fractions = (STAGE_SHARES[stage.name] * _stage_fraction(stage) for stage in self.stages.values())
        return Progress(tuple(self.stages.values()), min(1.0, sum(fractions)))

    def _elapsed_seconds(self) -> float:
        return time.monotonic() - self._stage_started


def _stage_fraction(stage: Stage) -> float:
    if stage.state == "done":
        return 1.0
    return min(1.0, stage.done / stage.of) if stage.of else 0.0
