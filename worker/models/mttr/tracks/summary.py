"""A track in one row: what is to be known of it without its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.values import Result, TimeRange
from shared.values.tracks import QUERY_COLOURS
from worker.models.contract import WindowOutput
from worker.models.mttr.tracks.writer import WindowTracks


@dataclass(frozen=True, slots=True)
class Track:
    """What one query meant.

    Args:
        score: mean over the frames of the probability of the instance that was followed.
        frames_visible: frames in which its mask is not empty.
        mean_area: pixels of its mask, the mean over those frames; None where there are none.
        switches: frames from which something else is followed than before, as far as the overlap tells.
        windows: windows of frames that were looked at.
    """

    score: float
    frames_visible: int
    mean_area: float | None
    switches: tuple[int, ...]
    windows: int

    def to_result(self, seq: int, query: str, span: TimeRange) -> Result:
        """As a row; `seq` is the number of the query."""
        data = {
            "query": query,
            "colour": list(QUERY_COLOURS[seq]),
            "frames_visible": self.frames_visible,
            "mean_area": self.mean_area,
            "switches": list(self.switches),
            "windows": self.windows,
        }
        return Result("track", seq, span, self.score, data)


def build_tracks(outputs: Sequence[WindowOutput[WindowTracks]]) -> tuple[Track, ...]:
    """One for each query; none without windows.

    Args:
        outputs: as the writer gave them back, with `WindowTracks` as value.
    """
    windows = [output.value for output in outputs]
    queries = range(len(windows[0].choices) if windows else 0)
    return tuple(_build_track(query, outputs, windows) for query in queries)


def _build_track(query: int, outputs: Sequence[WindowOutput[WindowTracks]], windows: Sequence[WindowTracks]) -> Track:
    scores_T = np.concatenate([window.scores_QT[query] for window in windows])
    areas_T = np.concatenate([window.areas_QT[query] for window in windows])
    visible = int(np.count_nonzero(areas_T))
    pairs = zip(outputs, windows, strict=True)
    return Track(
        score=float(scores_T.mean(dtype=np.float64)),
        frames_visible=visible,
        mean_area=round(int(areas_T.sum()) / visible, 1) if visible else None,
        switches=tuple(output.start for output, window in pairs if window.choices[query].switched),
        windows=len(windows),
    )
