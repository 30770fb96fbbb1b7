"""Videos and frames for the tests of the models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.catalog import CATALOG, Params
from shared.values import Progress
from tests.support.seeded_networks import NETWORKS
from worker.models import load_definition
from worker.models.contract import LoadedModel, RunInputs
from worker.pipeline import StageTracker
from worker.pipeline.execute import Execution, execute_run
from worker.runtime.placement import Placement
from worker.video.probe import probe_video
from worker.video.render import write_video
from worker.video.windows import Window, WindowSpec, sliding_windows

FPS = Fraction(25)
CPU_PLACEMENT = Placement(threads=2)


class SilentReport:
    """A report that nobody reads."""

    def report_progress(self, progress: Progress) -> None:
        """Not needed."""

    def log_event(self, action: str, **facts: Any) -> None:
        """Not needed."""


def cut_windows(frames: npt.NDArray[np.uint8], spec: WindowSpec) -> Iterator[Window]:
    """Frames as the loop cuts them."""
    return sliding_windows(iter(frames), spec)


def make_pattern(seed: int, height: int = 96, width: int = 128) -> npt.NDArray[np.uint8]:
    """A image of coloured squares, RGB, another one for each seed."""
    squares = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return squares.repeat(16, axis=0).repeat(16, axis=1)


def make_shots_video(lengths: Sequence[int], out: Path) -> Path:
    """A video of still images, each shown for so many frames."""
    return write_video((make_pattern(seed) for seed, length in enumerate(lengths) for _ in range(length)), out, FPS)


def run_model(
    name: str,
    path: Path,
    params: Params,
    scratch: Path,
    placement: Placement = CPU_PLACEMENT,
    inputs: RunInputs | None = None,
) -> Execution:
    """One model on one video, by the real loop; a model whose weights are imported has name-seeded ones."""
    scratch.mkdir()
    model = LoadedModel(load_definition(name), placement, (), NETWORKS[name]() if name in NETWORKS else None)
    return execute_run(
        model, path, probe_video(path), inputs or RunInputs(), params, scratch, StageTracker(SilentReport())
    )


def run_needed_models(name: str, params: Params, path: Path, scratch: Path) -> RunInputs:
    """What the runs that a model needs yield, each by its quickest way."""
    results, files = {}, {}
    for need in CATALOG[name].needs_for(params):
        outcome = run_model(
            need, path, CATALOG[need].params(**dict(CATALOG[need].weightless_when)), scratch / need
        ).outcome
        results[need] = outcome.results
        files[need] = {file.kind: file.path for file in outcome.files}
    return RunInputs(results, files)
