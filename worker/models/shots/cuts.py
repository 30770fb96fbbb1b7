"""From scores to shots, frame by frame: one state machine for `infer` and the picker, so they cannot disagree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.models.contract import Picks, Piece
from worker.models.shots.config import COLOUR_RULE, ColourRule
from worker.video.pictures.keyframes import middle, name

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """A shot in frames: `start` to `end` (exclusive). `transition`, `score`: as in `shared.values.Shot`."""

    start: int
    end: int
    transition: int = 0
    score: float | None = None


class Cutter(Protocol):
    """Follows the scores of a film in order.

    Attributes:
        seen: frames decided so far.
        open: first frame of the shot that goes on; None within a transition.
    """

    seen: int
    open: int | None

    def feed(self, scores: Scores) -> list[Span]:
        """The shots that these scores, one row a frame, bring to an end."""

    def end(self) -> list[Span]:
        """The film is over: the shot that was open."""


@dataclass(slots=True)
class Transitions:
    """Shots between transitions, by the rule published with TransNet V2.

    Frames with a probability above the threshold are a transition. The shot before ends with the first of them, the
    next begins after the last. Frames of a transition that opens or ends the film belong to no shot, but a film that
    is nothing else is one shot.

    Args:
        threshold: probability above which a frame belongs to a transition.
    """

    threshold: float
    seen: int = 0
    open: int | None = None
    _end: int = 0
    """Where the last shot ended."""
    _shots: int = 0
    _gap: int = 0
    _score: float | None = None
    _peak: float = 0.0

    def feed(self, scores: Scores) -> list[Span]:
        """`scores`: (T,) probabilities."""
        return [span for probability in scores.tolist() for span in self._step(probability)]

    def end(self) -> list[Span]:
        """The open shot, or the whole film where it is one transition; nothing for a film that ends in one."""
        if self.open is not None:
            return [self._close(self.seen)]
        return [Span(0, self.seen)] if self.seen and not self._shots else []

    def _step(self, probability: float) -> list[Span]:
        closed = []
        if probability > self.threshold:
            if self.open is not None:
                closed = [self._close(self.seen + 1)]
            self._peak = max(self._peak, probability)
        elif self.open is None:
            self.open, self._gap = self.seen, self.seen - self._end
            self._score = self._peak if self._shots else None
        self.seen += 1
        return closed

    def _close(self, end: int) -> Span:
        assert self.open is not None
        span = Span(self.open, end, self._gap, self._score)
        self.open, self._end, self._peak = None, end, 0.0
        self._shots += 1
        return span


@dataclass(slots=True)
class ColourCuts:
    """Shots between hard cuts, by the LGSS rule (`config.ColourRule`).

    Args:
        min_frames: a cut closer than this to the last one is passed over; the first is free.
        rule: what a cut is.
    """

    min_frames: int
    rule: ColourRule = COLOUR_RULE
    seen: int = 0
    open: int | None = 0

    def feed(self, scores: Scores) -> list[Span]:
        """`scores`: (T, 2), d_hsv and d_luv of each frame against the one before it."""
        return [span for d_hsv, d_luv in scores.tolist() for span in self._step(d_hsv, d_luv)]

    def end(self) -> list[Span]:
        """The last shot."""
        assert self.open is not None
        return [Span(self.open, self.seen)] if self.seen else []

    def _step(self, d_hsv: float, d_luv: float) -> list[Span]:
        assert self.open is not None
        far = self.open == 0 or self.seen - self.open >= self.min_frames
        closed = []
        if self.seen and far and self.rule.is_cut(d_hsv, d_luv):
            closed = [Span(self.open, self.seen)]
            self.open = self.seen
        self.seen += 1
        return closed


@dataclass(slots=True)
class Keyframes:
    """The picker: first, middle and last frame of every shot, named as in MovieNet: `shot_%04d_img_{0,1,2}.jpg`.

    Args:
        cutter: fresh.
    """

    cutter: Cutter
    _shots: int = 0
    """Shots that have ended."""
    _begun: int = 0
    """Shots whose first picture was asked for."""
    _pictures: list[tuple[int, str]] = field(default_factory=list)

    def feed(self, piece: Piece) -> Picks:
        """Pictures of the shots that this piece ends, and the first one of the shot it leaves open."""
        for span in self.cutter.feed(piece.value):
            self._ended(span)
        if self.cutter.open is not None:
            self._began(self.cutter.open)
        return Picks(self._taken(), self._horizon())

    def end(self, frames: int) -> Picks:
        """Pictures of the last shot."""
        if frames != self.cutter.seen:
            raise ValueError(f"scores for {self.cutter.seen} frames of {frames}")
        for span in self.cutter.end():
            self._ended(span)
        return Picks(self._taken(), frames)

    def _horizon(self) -> int:
        """No frame before this will be wanted.

        The open shot ends at what has been seen at the earliest, so this is its earliest middle. Between two shots the
        next one begins later than all that has been seen; but a film that is one transition is one shot from frame 0.
        """
        if self.cutter.open is not None:
            return middle(self.cutter.open, self.cutter.seen)
        return self.cutter.seen if self._shots else 0

    def _began(self, start: int) -> None:
        if self._begun == self._shots:
            self._pictures.append((start, name(self._shots, 0)))
            self._begun += 1

    def _ended(self, span: Span) -> None:
        self._began(span.start)
        self._pictures.append((middle(span.start, span.end), name(self._shots, 1)))
        self._pictures.append((span.end - 1, name(self._shots, 2)))
        self._shots += 1

    def _taken(self) -> tuple[tuple[int, str], ...]:
        taken = tuple(self._pictures)
        self._pictures.clear()
        return taken
