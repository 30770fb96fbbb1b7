"""Progress of a run on standard error."""

from __future__ import annotations

import sys
import time
from typing import Any

from shared.values import Progress, Stage

LINE_INTERVAL_S = 2.0
"""Seconds between two lines about one stage where output is not a terminal."""

REDRAW_INTERVAL_S = 0.1
"""Seconds between two updates of the line in a terminal."""


class ProgressPrinter:
    """Prints progress to standard error: one line that is redrawn in a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._printed_stage = ""
        self._printed_at = 0.0

    def report_progress(self, progress: Progress) -> None:
        """Print the running stage, unless it was printed just before."""
        stage = next((stage for stage in progress.stages if stage.state == "running"), None)
        now = time.monotonic()
        pause = REDRAW_INTERVAL_S if self._terminal else LINE_INTERVAL_S
        if stage is None or (stage.name == self._printed_stage and now - self._printed_at < pause):
            return
        self._printed_stage, self._printed_at = stage.name, now
        start, end = ("\r\x1b[K", "") if self._terminal else ("", "\n")
        print(f"{start}{_format_stage(stage, progress.eta_s)}", end=end, file=sys.stderr, flush=True)

    def log_event(self, action: str, **facts: Any) -> None:
        """Print an event on a line of its own."""
        words = " ".join(f"{name}={value}" for name, value in facts.items())
        print(f"{action} {words}", file=sys.stderr, flush=True)


def _format_stage(stage: Stage, eta: float | None) -> str:
    rate = f"  {stage.per_second:.1f}/s" if stage.per_second else ""
    remaining = f"  {eta:.0f} s to go" if eta is not None else ""
    return f"{stage.name}: {stage.done}/{stage.of} {stage.unit}s{rate}{remaining}"
