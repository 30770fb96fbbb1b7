"""Tracks: where the thing that a query names is, frame by frame, and the forms in which that is given.

The artifact `tracks` is a file of JSON lines (`tracks.jsonl`, UTF-8, one object a line, no header), one line for each
frame and query, sorted by frame, then by query. `TrackFrame.timed` says what is in a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.values.time import Moment

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""

JSON_LINES_MEDIA_TYPE = "application/x-ndjson"
"""Media type of the file."""

QUERY_COLOURS: tuple[Colour, ...] = (
    (41, 171, 226), (237, 30, 121), (35, 161, 90), (255, 148, 59),
    (255, 255, 0), (153, 68, 255), (204, 255, 255), (0, 255, 153),
)  # fmt: skip
"""Of the queries, in order. The first four are the published pipeline's; the others lie as far as may be from these and
from each other, for people who see all colours and for those who do not (Machado et al. 2009: protanopia, deuteranopia,
tritanopia), and can all be read on black (WCAG contrast of 4.5)."""


@dataclass(frozen=True, slots=True)
class TrackFrame:
    """What one query means in one frame: a line of the file, but for the time.

    Args:
        query: number of the query, from 0.
        frame: number of the frame in the video.
        score: probability that the query means the instance, in this frame.
        instance: which of the network's 50 instances was followed; the number means something in one window only.
        area: pixels of the mask.
        box: smallest box around the mask, (x, y, width, height) in pixels; None where the mask is empty.
        size: (height, width) of the video as it is shown, and of the mask.
        counts: the mask, run lengths column by column in COCO's compressed form (pycocotools).
    """

    query: int
    frame: int
    score: float
    instance: int
    area: int
    box: tuple[int, int, int, int] | None
    size: tuple[int, int]
    counts: str

    @property
    def mask(self) -> dict[str, Any]:
        """The mask as pycocotools takes it."""
        return {"size": list(self.size), "counts": self.counts}

    def to_dict(self) -> dict[str, Any]:
        """The line without its time, which is not known before the video was read; read back by `from_dict`."""
        return {
            "query": self.query,
            "frame": self.frame,
            "score": self.score,
            "instance": self.instance,
            "area": self.area,
            "box": None if self.box is None else list(self.box),
            "mask": self.mask,
        }

    def to_timed_dict(self, moment: Moment) -> dict[str, Any]:
        """The line: `query, frame, seconds, pts, timecode, score, instance, area, box, mask`.

        Args:
            moment: of the frame; ValueError for that of another one.
        """
        if moment.frame != self.frame:
            raise ValueError(f"the time of frame {moment.frame} for frame {self.frame}")
        return {"query": self.query} | moment.to_dict() | self.to_dict()

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> TrackFrame:
        """Out of a line, with a time or without."""
        height, width = record["mask"]["size"]
        return TrackFrame(
            query=record["query"],
            frame=record["frame"],
            score=record["score"],
            instance=record["instance"],
            area=record["area"],
            box=None if record["box"] is None else tuple(record["box"]),
            size=(height, width),
            counts=record["mask"]["counts"],
        )


def parse_track_lines(lines: Iterable[str | bytes]) -> Iterator[dict[str, Any]]:
    """The lines of the file as they are read, one at a time."""
    return (json.loads(line) for line in lines)
