"""The stages of a run as people see them: what runs, how far it is, how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from shared.values import Progress, Stage

SHARES = {"plan": 0.01, "encode": 0.92, "infer": 0.02, "decode": 0.03, "store": 0.02}
"""Part of a run's progress that each stage stands for."""


class Report(Protocol):
    """How a run shows itself and is stopped."""

    def progress(self, progress: Progress) -> None:
        """So far; called after each batch. Raises to stop the run."""

    def note(self, action: str, **facts: Any) -> None:
        """Something worth a line in the log."""


@dataclass(slots=True)
class Stages:
    """The stages of one run: times them and reports."""

    report: Report
    stages: dict[str, Stage] = field(default_factory=lambda: {name: Stage(name) for name in SHARES})
    _began: float = 0.0

    @contextmanager
    def running(self, name: str, of: int = 1, unit: str = "step") -> Iterator[None]:
        """One stage, from waiting to done. Interrupted, it stays where it was."""
        self._began = time.monotonic()
        self.stages[name] = Stage(name, "running", of=of, unit=unit)
        self.report.progress(self.progress())
        yield
        ended = replace(self.stages[name], state="done", seconds=self._seconds())
        self.stages[name] = replace(ended, done=ended.of or ended.done)

    def advance(self, name: str, done: int) -> None:
        """So many units of the running stage are done: report it."""
        stage = self.stages[name]
        of = stage.of if stage.of is None or done <= stage.of else done
        self.stages[name] = replace(stage, done=done, of=of, seconds=self._seconds())
        self.report.progress(self.progress())

    def told(self, name: str) -> Callable[[int, int], None]:
        """How the running stage itself says how many frames of how many are done."""

        def advance(done: int, of: int) -> None:
            self.stages[name] = replace(self.stages[name], of=of, unit="frame")
            self.advance(name, done)

        return advance

    def correct(self, name: str, of: int) -> None:
        """The number of units is now known for certain."""
        self.stages[name] = replace(self.stages[name], done=of, of=of)

    def progress(self) -> Progress:
        """As the ledger shows it."""
        parts = (SHARES[stage.name] * _part(stage) for stage in self.stages.values())
        return Progress(tuple(self.stages.values()), min(1.0, sum(parts)))

    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _part(stage: Stage) -> float:
    if stage.state == "done":
        return 1.0
    return min(1.0, stage.done / stage.of) if stage.of else 0.0
