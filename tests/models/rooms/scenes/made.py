"""Shots, pieces and films made of numbers, without pixels; checkpoints as their authors write them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.values import Result, Timeline
from tests.factories import shots, video
from worker.models.contract import Film, Inputs, Piece


def shots_of(lengths: Sequence[int]) -> list[Result]:
    """Rows of shots that follow each other, so many frames each."""
    return shots(*pairwise(accumulate(lengths, initial=0)))


def pieces_of(values_PTD: npt.NDArray[np.float32]) -> list[Piece]:
    """A piece for each, one place after the other."""
    return [Piece(place, place + 1, value) for place, value in enumerate(values_PTD)]


def film_of(rows: Sequence[Result], scratch: Path) -> Film:
    """A film that stayed closed, with those rows of shots."""
    facts = video()
    inputs = Inputs(results={"shots": rows})
    return Film(scratch / "film.mp4", facts, Timeline.nothing(facts.clock), None, scratch, inputs)
