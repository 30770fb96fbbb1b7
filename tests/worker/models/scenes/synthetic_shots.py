"""Shots, window outputs and videos made of numbers, without pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from shared.values import Result, Timeline
from tests.support.factories import make_shots, make_video
from worker.models.contract import RunContext, RunInputs, WindowOutput


def make_shot_rows(lengths: Sequence[int]) -> list[Result]:
    """Rows of shots that follow each other, so many frames each."""
    return make_shots(*pairwise(accumulate(lengths, initial=0)))


def make_window_outputs(values_PTD: npt.NDArray[np.float32]) -> list[WindowOutput[npt.NDArray[np.float32]]]:
    """One output for each value, one position after the other."""
    return [WindowOutput(index, index + 1, value) for index, value in enumerate(values_PTD)]


def make_context(rows: Sequence[Result]) -> RunContext:
    """The context of a run that did not open its video, with those rows of shots."""
    facts = make_video()
    return RunContext(facts, Timeline.empty(facts.clock), RunInputs(results={"shots": rows}))
