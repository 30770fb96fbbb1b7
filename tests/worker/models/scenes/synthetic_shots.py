"""Shots, pieces and films made of numbers, without pixels; checkpoints as their authors write them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.values import Result, Timeline
from tests.support.factories import make_shots, make_video
from worker.models.contract import RunContext, RunInputs, WindowOutput


def make_shot_rows(lengths: Sequence[int]) -> list[Result]:
    """Rows of shots that follow each other, so many frames each."""
    return make_shots(*pairwise(accumulate(lengths, initial=0)))


def make_window_outputs(values_PTD: npt.NDArray[np.float32]) -> list[WindowOutput]:
    """A piece for each, one place after the other."""
    return [WindowOutput(index, index + 1, value) for index, value in enumerate(values_PTD)]


def make_video_input(rows: Sequence[Result], scratch: Path) -> RunContext:
    """A film that stayed closed, with those rows of shots."""
    facts = make_video()
    inputs = RunInputs(results={"shots": rows})
    return RunContext(scratch / "film.mp4", facts, Timeline.empty(facts.clock), None, scratch, inputs)
