"""Masks written down window by window, as the film is read: what stays in memory does not grow with the masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.catalog import MttrParams
from shared.values import Timeline, Video
from shared.values.tracks import TrackFrame
from worker.models.contract import Piece
from worker.models.mttr.answer import Answer, Floats, mask_logits
from worker.models.mttr.tracks.linking import Bools, Choice, choose, inside
from worker.models.mttr.tracks.masks import Size, Sizes, area, box, encoded, mask

UNTIMED = "tracks.untimed.jsonl"
"""What the writer writes: lines without times, which are exact only once the film was read."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What stays in memory of one window: Q queries, the T frames that it answers for.

    Args:
        scores_QT: float32 in 0..1, probability of the instance followed in each frame.
        areas_QT: int64, pixels of its mask.
        choices: for each query.
    """

    scores_QT: Floats  # noqa: N815 (tensors carry their shape in the name)
    areas_QT: npt.NDArray[np.int64]  # noqa: N815 (the same)
    choices: tuple[Choice, ...]


class Tracker:
    """The writer of the room: takes the answers of each window, follows one instance a query, writes its masks.

    Args:
        params: for the queries, and whether windows are linked.
        video: for the size of the masks.
        scratch: where the lines go.
    """

    def __init__(self, params: MttrParams, video: Video, scratch: Path) -> None:
        self._link, self._shown = params.link, (video.height, video.width)
        self._followed: list[Bools | None] = [None] * len(params.queries)
        self._lines = (scratch / UNTIMED).open("w", encoding="ascii")

    def feed(self, piece: Piece) -> Piece:
        """One more window: an answer for each query. Later windows have the last word on the frames they share."""
        answers: Sequence[Answer] = piece.value
        choices = tuple(map(self._choose, range(len(self._followed)), answers))
        frames = piece.stop - piece.start
        tracks = [
            list(track_frames(query, answer, choice.instance, range(piece.start, piece.stop), self._shown))
            for query, (answer, choice) in enumerate(zip(answers, choices, strict=True))
        ]
        for at in range(frames):
            self._lines.writelines(json.dumps(track[at].record(), separators=(",", ":")) + "\n" for track in tracks)
        for query, (answer, choice) in enumerate(zip(answers, choices, strict=True)):
            self._followed[query] = inside(answer, choice.instance, frames, len(answer.referred_TN))
        scores_QT = np.array([[each.score for each in track] for track in tracks], np.float32)
        areas_QT = np.array([[each.area for each in track] for track in tracks], np.int64)
        return Piece(piece.start, piece.stop, Followed(scores_QT, areas_QT, choices))

    def close(self) -> None:
        """No more windows."""
        self._lines.close()

    def _choose(self, query: int, answer: Answer) -> Choice:
        return choose(answer, self._followed[query], self._link)


def track_frames(query: int, answer: Answer, instance: int, frames: range, shown: Size) -> Iterator[TrackFrame]:
    """What one instance is in the first frames of its window.

    Args:
        query: number of the query.
        answer: of the window.
        instance: that is followed.
        frames: their numbers in the film.
        shown: height and width of the film.
    """
    seen = (answer.height, answer.width)
    sizes = Sizes(padded=seen, seen=seen, shown=shown)  # one film a batch: nothing is padded
    stop = len(frames)
    logits_Thw = mask_logits(answer.kernels_TNK[:stop, instance], answer.features_TKhw[:stop])
    for frame, logits_hw, score in zip(frames, logits_Thw, answer.referred_TN[:stop, instance], strict=True):
        rle = encoded(mask(logits_hw, sizes))
        yield TrackFrame(
            query=query,
            frame=frame,
            score=round(float(score), 6),
            instance=instance,
            area=area(rle),
            box=box(rle),
            size=shown,
            counts=rle["counts"],
        )


def track_lines(scratch: Path, timeline: Timeline, target: Path) -> Path:
    """The lines of the film with their times, one at a time.

    Args:
        scratch: where the writer wrote.
        timeline: exact times.
        target: the file to write.
    """
    with target.open("w", encoding="ascii") as out:
        for each in read(scratch / UNTIMED):
            out.write(json.dumps(each.timed(timeline.at(each.frame)), separators=(",", ":")) + "\n")
    return target


def read(path: Path) -> Iterator[TrackFrame]:
    """Lines with or without times, one at a time."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            yield TrackFrame.read(json.loads(line))
