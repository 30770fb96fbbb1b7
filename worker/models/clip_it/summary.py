"""The sampled frames of a video, its summary for one query, and the rows that describe it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from shared.values import Result, Timeline
from worker.models.clip_it.captions import Guide
from worker.models.clip_it.config import ARCHITECTURE
from worker.models.clip_it.selection import FrameSpan, Selection, expand_scores, mean_scores
from worker.models.contract import WindowOutput

Floats = npt.NDArray[np.float32]
EMPTY_SELECTION = Selection()


@dataclass(frozen=True, slots=True, eq=False)
class SampledFrames:
    """The T sampled frames of a video.

    Args:
        features: (T, 512), of CLIP, not normalised.
        starts: their frame numbers.
        frame_count: of the video; each sampled frame stands for those up to the next.
    """

    features: Floats
    starts: tuple[int, ...]
    frame_count: int

    @staticmethod
    def from_outputs(outputs: Sequence[WindowOutput[Floats]]) -> SampledFrames:
        """Stack the outputs of `encode`, in order."""
        if not outputs:
            return SampledFrames(np.empty((0, ARCHITECTURE.width), np.float32), (), 0)
        features_TD = np.stack([output.value for output in outputs])
        return SampledFrames(features_TD, tuple(output.start for output in outputs), outputs[-1].stop)

    @property
    def frame_spans(self) -> tuple[FrameSpan, ...]:
        """The frames that each sampled frame stands for, end exclusive."""
        return tuple(pairwise((*self.starts, self.frame_count))) if self.starts else ()

    @property
    def window_outputs(self) -> tuple[WindowOutput[Floats], ...]:
        """The outputs of `encode` again: the inverse of `from_outputs`."""
        return tuple(
            WindowOutput(*span, value_D) for span, value_D in zip(self.frame_spans, self.features, strict=True)
        )


@dataclass(frozen=True, slots=True, eq=False)
class VideoSummary:
    """The summary of a video for one query.

    Args:
        sampled: the frames that were scored.
        guide: the sentences; None for a video without frames.
        scores: (T,), of the sampled frames, 0..1.
        segments: of the whole video, end exclusive.
        selection: the parts that make the summary.
    """

    sampled: SampledFrames
    guide: Guide | None
    scores: Floats
    segments: tuple[FrameSpan, ...] = ()
    selection: Selection = EMPTY_SELECTION

    def to_results(self, timeline: Timeline) -> tuple[Result, ...]:
        """Build all rows: `frame_score`, `segment`, `highlight`, `caption`."""
        scores_N = expand_scores(self.scores, self.sampled.starts, self.sampled.frame_count)
        return (
            *self._frame_score_results(timeline),
            *self._segment_results(timeline, mean_scores(scores_N, self.segments)),
            *self._highlight_results(timeline, mean_scores(scores_N, self.selection.spans)),
            *self._caption_results(),
        )

    def _frame_score_results(self, timeline: Timeline) -> Iterator[Result]:
        """One row per sampled frame, up to the next one: so every frame has a score, without a row for each."""
        for seq, (span, score) in enumerate(zip(self.sampled.frame_spans, self.scores.tolist(), strict=True)):
            yield Result("frame_score", seq, timeline.time_range(*span), score)

    def _segment_results(self, timeline: Timeline, means: Sequence[float]) -> Iterator[Result]:
        for seq, (span, mean) in enumerate(zip(self.segments, means, strict=True)):
            selected = seq in self.selection.segments
            yield Result("segment", seq, timeline.time_range(*span), mean, {"selected": selected})

    def _highlight_results(self, timeline: Timeline, means: Sequence[float]) -> Iterator[Result]:
        for seq, (span, mean) in enumerate(zip(self.selection.spans, means, strict=True)):
            inside = [number for number in self.selection.segments if spans_overlap(self.segments[number], span)]
            data = {"segments": [inside[0], inside[-1]], "rule": self.selection.rule}
            yield Result("highlight", seq, timeline.time_range(*span), mean, data)

    def _caption_results(self) -> Iterator[Result]:
        if self.guide is None:
            return
        for seq, text in enumerate(self.guide.distinct_sentences):
            places = self.guide.sentences.count(text)
            yield Result("caption", seq, data={"text": text, "source": self.guide.source, "places": places})


def spans_overlap(first: FrameSpan, second: FrameSpan) -> bool:
    """Tell whether two spans share a frame."""
    return first[0] < second[1] and second[0] < first[1]
