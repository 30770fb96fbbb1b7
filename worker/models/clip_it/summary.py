"""What the room finds out about a film, and the rows that say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from shared.values import Result, Timeline
from worker.models.clip_it.captions import Guide
from worker.models.clip_it.config import ARCHITECTURE
from worker.models.clip_it.selection import Selection, Span, stepped, values
from worker.models.contract import Piece

Floats = npt.NDArray[np.float32]
NOTHING = Selection()


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """The sampled frames of a film, T of them.

    Args:
        features: (T, 512), as CLIP gives them.
        starts: their numbers.
        frames: of the film; each sampled frame stands for those up to the next.
    """

    features: Floats
    starts: tuple[int, ...]
    frames: int

    @staticmethod
    def of(pieces: Sequence[Piece]) -> Sampled:
        """Out of what `encode` gave, in order."""
        if not pieces:
            return Sampled(np.empty((0, ARCHITECTURE.width), np.float32), (), 0)
        features_TD = np.stack([piece.value for piece in pieces])
        return Sampled(features_TD, tuple(piece.start for piece in pieces), pieces[-1].stop)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The frames that each stands for, end exclusive."""
        return tuple(pairwise((*self.starts, self.frames))) if self.starts else ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What they were made of: the inverse of `of`."""
        return tuple(Piece(*span, value_D) for span, value_D in zip(self.spans, self.features, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """The answer to one question about a film.

    Args:
        sampled: what it is about.
        guide: the question; None for a film without frames.
        scores: (T,), of the sampled frames, 0..1.
        segments: that the film falls into, end exclusive.
        selection: what the summary is made of.
    """

    sampled: Sampled
    guide: Guide | None
    scores: Floats
    segments: tuple[Span, ...] = ()
    selection: Selection = NOTHING

    def rows(self, timeline: Timeline) -> tuple[Result, ...]:
        """Everything but the files: `frame_score`, `segment`, `highlight`, `caption`."""
        scores_N = stepped(self.scores, self.sampled.starts, self.sampled.frames)
        return (
            *self._frame_scores(timeline),
            *self._segments(timeline, values(scores_N, self.segments)),
            *self._highlights(timeline, values(scores_N, self.selection.spans)),
            *self._captions(),
        )

    def _frame_scores(self, timeline: Timeline) -> Iterator[Result]:
        """One a sampled frame, up to the next one: a score for each frame of the film without a row for each."""
        for seq, (span, score) in enumerate(zip(self.sampled.spans, self.scores.tolist(), strict=True)):
            yield Result("frame_score", seq, timeline.range(*span), score)

    def _segments(self, timeline: Timeline, means: Sequence[float]) -> Iterator[Result]:
        for seq, (span, mean) in enumerate(zip(self.segments, means, strict=True)):
            selected = seq in self.selection.segments
            yield Result("segment", seq, timeline.range(*span), mean, {"selected": selected})

    def _highlights(self, timeline: Timeline, means: Sequence[float]) -> Iterator[Result]:
        for seq, (span, mean) in enumerate(zip(self.selection.spans, means, strict=True)):
            inside = [number for number in self.selection.segments if meet(self.segments[number], span)]
            data = {"segments": [inside[0], inside[-1]], "rule": self.selection.rule}
            yield Result("highlight", seq, timeline.range(*span), mean, data)

    def _captions(self) -> Iterator[Result]:
        if self.guide is None:
            return
        for seq, text in enumerate(self.guide.distinct):
            places = self.guide.sentences.count(text)
            yield Result("caption", seq, data={"text": text, "source": self.guide.source, "places": places})


def meet(one: Span, other: Span) -> bool:
    """Whether two spans share a frame."""
    return one[0] < other[1] and other[0] < one[1]
