"""Masks written down window by window, as the video is read: what stays in memory does not grow with the masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.catalog import MttrParams
from shared.values import Timeline, VideoFacts
from shared.values.tracks import TrackFrame
from worker.models.contract import WindowOutput
from worker.models.mttr.tracks.linking import Bools, InstanceChoice, binary_masks, choose_instance
from worker.models.mttr.tracks.masks import MaskSizes, Size, bounding_box, encode_rle, mask_area, upscale_mask
from worker.models.mttr.tracks.window_prediction import Floats, WindowPrediction, compute_mask_logits

UNTIMED_FILE = "tracks.untimed.jsonl"
"""What the writer writes: lines without times, which are exact only once the video was read."""


@dataclass(frozen=True, slots=True)
class WindowTracks:
    """What stays in memory of one window: Q queries, the T frames that it answers for.

    Args:
        scores_QT: float32 in 0..1, probability of the instance followed in each frame.
        areas_QT: int64, pixels of its mask.
        choices: for each query.
    """

    scores_QT: Floats  # noqa: N815 (tensors carry their shape in the name)
    areas_QT: npt.NDArray[np.int64]  # noqa: N815 (the same)
    choices: tuple[InstanceChoice, ...]


class TrackWriter:
    """The writer of the model: takes the answers of each window, follows one instance a query, writes its masks.

    Args:
        params: for the queries, and whether windows are linked.
        video: for the size of the masks.
        scratch: where the lines go.
    """

    def __init__(self, params: MttrParams, video: VideoFacts, scratch: Path) -> None:
        self._link_windows, self._video_size = params.link, (video.height, video.width)
        self._previous_masks: list[Bools | None] = [None] * len(params.queries)
        self._lines = (scratch / UNTIMED_FILE).open("w", encoding="ascii")

    def write_output(self, output: WindowOutput[Sequence[WindowPrediction]]) -> WindowOutput[WindowTracks]:
        """One more window: an answer for each query. Later windows have the last word on the frames they share."""
        predictions = output.value
        choices = tuple(map(self._choose_instance, range(len(self._previous_masks)), predictions))
        frames = output.stop - output.start
        tracks = [
            list(
                make_track_frames(
                    query, prediction, choice.instance, range(output.start, output.stop), self._video_size
                )
            )
            for query, (prediction, choice) in enumerate(zip(predictions, choices, strict=True))
        ]
        for index in range(frames):
            self._lines.writelines(json.dumps(track[index].to_dict(), separators=(",", ":")) + "\n" for track in tracks)
        for query, (prediction, choice) in enumerate(zip(predictions, choices, strict=True)):
            self._previous_masks[query] = binary_masks(prediction, choice.instance, frames, len(prediction.referred_TN))
        scores_QT = np.array([[track_frame.score for track_frame in track] for track in tracks], np.float32)
        areas_QT = np.array([[track_frame.area for track_frame in track] for track in tracks], np.int64)
        return WindowOutput(output.start, output.stop, WindowTracks(scores_QT, areas_QT, choices))

    def close(self) -> None:
        """No more windows."""
        self._lines.close()

    def _choose_instance(self, query: int, prediction: WindowPrediction) -> InstanceChoice:
        return choose_instance(prediction, self._previous_masks[query], self._link_windows)


def make_track_frames(
    query: int, prediction: WindowPrediction, instance: int, frames: range, video_size: Size
) -> Iterator[TrackFrame]:
    """What one instance is in the first frames of its window.

    Args:
        query: number of the query.
        prediction: of the window.
        instance: that is followed.
        frames: their numbers in the video.
        video_size: height and width of the video.
    """
    input_size = (prediction.height, prediction.width)
    sizes = MaskSizes(padded=input_size, unpadded=input_size, video=video_size)  # one video a batch: nothing is padded
    stop = len(frames)
    logits_Thw = compute_mask_logits(prediction.kernels_TNK[:stop, instance], prediction.features_TKhw[:stop])
    for frame, logits_hw, score in zip(frames, logits_Thw, prediction.referred_TN[:stop, instance], strict=True):
        rle = encode_rle(upscale_mask(logits_hw, sizes))
        yield TrackFrame(
            query=query,
            frame=frame,
            score=round(float(score), 6),
            instance=instance,
            area=mask_area(rle),
            box=bounding_box(rle),
            size=video_size,
            counts=rle["counts"],
        )


def write_timed_tracks(scratch: Path, timeline: Timeline, target: Path) -> Path:
    """The lines of the video with their times, one at a time.

    Args:
        scratch: where the writer wrote.
        timeline: exact times.
        target: the file to write.
    """
    with target.open("w", encoding="ascii") as out:
        for track_frame in read_track_frames(scratch / UNTIMED_FILE):
            out.write(
                json.dumps(track_frame.to_timed_dict(timeline.moment_at(track_frame.frame)), separators=(",", ":"))
                + "\n"
            )
    return target


def read_track_frames(path: Path) -> Iterator[TrackFrame]:
    """Lines with or without times, one at a time."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            yield TrackFrame.from_dict(json.loads(line))
