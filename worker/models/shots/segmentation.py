"""From scores to shots, frame by frame: one state machine for `infer` and the keyframes, so they cannot disagree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.models.contract import KeyframeRequests, WindowOutput
from worker.models.shots.config import COLOUR_RULE, ColourRule
from worker.video.keyframes.loader import keyframe_name, middle_frame

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ShotSpan:
    """A shot in frames: `start` to `finish` (exclusive). `transition`, `score`: as in `shared.values.Shot`."""

    start: int
    end: int
    transition: int = 0
    score: float | None = None


class ShotSegmenter(Protocol):
    """Follows the scores of a video in order.

    Attributes:
        seen: frames decided so far.
        open: first frame of the shot that goes on; None within a transition.
    """

    frames_seen: int
    open_start: int | None

    def add_scores(self, scores: Scores) -> list[ShotSpan]:
        """Take scores, one row per frame; return the shots that end within them."""

    def finish(self) -> list[ShotSpan]:
        """End the video; return the shot that was open."""


@dataclass(slots=True)
class TransitionSegmenter:
    """Shots between transitions, by the rule published with TransNet V2.

    Frames with a probability above the threshold are a transition. The shot before ends with the first of them, the
    next begins after the last. Frames of a transition that opens or ends the video belong to no shot, but a video that
    is nothing else is one shot.

    Args:
        threshold: probability above which a frame belongs to a transition.
    """

    threshold: float
    frames_seen: int = 0
    open_start: int | None = None
    _last_end: int = 0
    """Where the last shot ended."""
    _shots_closed: int = 0
    _transition_frames: int = 0
    _open_score: float | None = None
    _peak_probability: float = 0.0

    def add_scores(self, scores: Scores) -> list[ShotSpan]:
        """`scores`: (T,) probabilities."""
        return [span for probability in scores.tolist() for span in self._add_frame(probability)]

    def finish(self) -> list[ShotSpan]:
        """Return the open shot, or the whole video where it is one transition; nothing for a video that ends in one."""
        if self.open_start is not None:
            return [self._close_shot(self.frames_seen)]
        return [ShotSpan(0, self.frames_seen)] if self.frames_seen and not self._shots_closed else []

    def _add_frame(self, probability: float) -> list[ShotSpan]:
        closed = []
        if probability > self.threshold:
            if self.open_start is not None:
                closed = [self._close_shot(self.frames_seen + 1)]
            self._peak_probability = max(self._peak_probability, probability)
        elif self.open_start is None:
            self.open_start, self._transition_frames = self.frames_seen, self.frames_seen - self._last_end
            self._open_score = self._peak_probability if self._shots_closed else None
        self.frames_seen += 1
        return closed

    def _close_shot(self, end: int) -> ShotSpan:
        assert self.open_start is not None
        span = ShotSpan(self.open_start, end, self._transition_frames, self._open_score)
        self.open_start, self._last_end, self._peak_probability = None, end, 0.0
        self._shots_closed += 1
        return span


@dataclass(slots=True)
class ColourSegmenter:
    """Shots between hard cuts, by the LGSS rule (`config.ColourRule`).

    Args:
        min_frames: a cut closer than this to the last one is passed over; the first is free.
        rule: what a cut is.
    """

    min_frames: int
    rule: ColourRule = COLOUR_RULE
    frames_seen: int = 0
    open_start: int | None = 0

    def add_scores(self, scores: Scores) -> list[ShotSpan]:
        """`scores`: (T, 2), d_hsv and d_luv of each frame against the one before it."""
        return [span for d_hsv, d_luv in scores.tolist() for span in self._add_frame(d_hsv, d_luv)]

    def finish(self) -> list[ShotSpan]:
        """Return the last shot."""
        assert self.open_start is not None
        return [ShotSpan(self.open_start, self.frames_seen)] if self.frames_seen else []

    def _add_frame(self, d_hsv: float, d_luv: float) -> list[ShotSpan]:
        assert self.open_start is not None
        is_far_enough = self.open_start == 0 or self.frames_seen - self.open_start >= self.min_frames
        closed = []
        if self.frames_seen and is_far_enough and self.rule.is_cut(d_hsv, d_luv):
            closed = [ShotSpan(self.open_start, self.frames_seen)]
            self.open_start = self.frames_seen
        self.frames_seen += 1
        return closed


@dataclass(slots=True)
class ShotKeyframeSelector:
    """Requests first, middle and last frame of every shot, named as in MovieNet: `shot_%04d_img_{0,1,2}.jpg`.

    Args:
        segmenter: fresh.
    """

    segmenter: ShotSegmenter
    _shots_ended: int = 0
    """Shots that have ended."""
    _shots_begun: int = 0
    """Shots whose first image was requested."""
    _requests: list[tuple[int, str]] = field(default_factory=list)

    def add_output(self, output: WindowOutput[Scores]) -> KeyframeRequests:
        """Request the frames of the shots that this window ends, and the first frame of the shot that stays open."""
        for span in self.segmenter.add_scores(output.value):
            self._request_last_frames(span)
        if self.segmenter.open_start is not None:
            self._request_first_frame(self.segmenter.open_start)
        return KeyframeRequests(self._take_requests(), self._earliest_frame())

    def finish(self, frame_count: int) -> KeyframeRequests:
        """Request the frames of the last shot."""
        if frame_count != self.segmenter.frames_seen:
            raise ValueError(f"scores for {self.segmenter.frames_seen} frames of {frame_count}")
        for span in self.segmenter.finish():
            self._request_last_frames(span)
        return KeyframeRequests(self._take_requests(), frame_count)

    def _earliest_frame(self) -> int:
        """Compute the first frame that may still be requested.

        The open shot ends at what has been seen at the earliest, so this is its earliest middle. Between two shots the
        next one begins later than all that has been seen; but a video that is one transition is one shot from frame 0.
        """
        if self.segmenter.open_start is not None:
            return middle_frame(self.segmenter.open_start, self.segmenter.frames_seen)
        return self.segmenter.frames_seen if self._shots_ended else 0

    def _request_first_frame(self, start: int) -> None:
        if self._shots_begun == self._shots_ended:
            self._requests.append((start, keyframe_name(self._shots_ended, 0)))
            self._shots_begun += 1

    def _request_last_frames(self, span: ShotSpan) -> None:
        self._request_first_frame(span.start)
        self._requests.append((middle_frame(span.start, span.end), keyframe_name(self._shots_ended, 1)))
        self._requests.append((span.end - 1, keyframe_name(self._shots_ended, 2)))
        self._shots_ended += 1

    def _take_requests(self) -> tuple[tuple[int, str], ...]:
        requests = tuple(self._requests)
        self._requests.clear()
        return requests
