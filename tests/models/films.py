"""Films and frames for the tests of the rooms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.catalog import MENU, Params
from shared.values import Progress
from tests.models.networks import NETWORKS
from worker.models import load
from worker.models.contract import Inputs, Model
from worker.models.placement import Placement
from worker.pipeline import Execution, Stages, execute
from worker.video.feed import Window, Windows, cut
from worker.video.probe import probe
from worker.video.render import film

FPS = Fraction(25)
PLACE = Placement(threads=2)


class Quiet:
    """A report that nobody reads."""

    def progress(self, progress: Progress) -> None:
        """Not needed."""

    def note(self, action: str, **facts: Any) -> None:
        """Not needed."""


def windows_of(frames: npt.NDArray[np.uint8], spec: Windows) -> Iterator[Window]:
    """Frames as the loop cuts them."""
    return cut(iter(frames), spec)


def pattern(seed: int, height: int = 96, width: int = 128) -> npt.NDArray[np.uint8]:
    """A picture of coloured squares, RGB, another one for each seed."""
    squares = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return squares.repeat(16, axis=0).repeat(16, axis=1)


def shots_film(lengths: Sequence[int], out: Path) -> Path:
    """A film of still pictures, each shown for so many frames."""
    return film((pattern(seed) for seed, length in enumerate(lengths) for _ in range(length)), out, FPS)


def run(
    name: str, path: Path, params: Params, scratch: Path, placement: Placement = PLACE, inputs: Inputs | None = None
) -> Execution:
    """One model on one film, by the real loop; a model whose weights are imported has name-seeded ones."""
    scratch.mkdir()
    model = Model(load(name), placement, (), NETWORKS[name]() if name in NETWORKS else None)
    return execute(model, path, probe(path), inputs or Inputs(), params, scratch, Stages(Quiet()))


def needed(name: str, params: Params, path: Path, scratch: Path) -> Inputs:
    """What the runs that a model needs yield, each by its quickest way."""
    results, files = {}, {}
    for need in MENU[name].needs_for(params):
        outcome = run(need, path, MENU[need].params(**dict(MENU[need].weightless)), scratch / need).outcome
        results[need] = outcome.results
        files[need] = {file.kind: file.path for file in outcome.files}
    return Inputs(results, files)
