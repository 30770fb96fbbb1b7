"""Answers in the format of the published ModelScope pipelines: summaries, scenes, tracks, embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from shared.values.embeddings import Embedding
from shared.values.results import Result
from shared.values.scenes import group_shots
from shared.values.time import Moment, TimeRange, format_clock_time


def format_modelscope_summary(highlights: Iterable[Result], fps: Fraction) -> dict[str, Any]:
    """The answer of the published CLIP-It pipeline on ModelScope: stretches of frames, both ends inclusive.

    Its time stamps are those of a video of even rate: the number of the frame by the frames per second. Exact times are
    in the rows.

    Args:
        highlights: rows of that kind, in order.
        fps: of the video; where it has none (0), the time stamps are the exact times.

    Raises:
        ValueError: a row has no range, or an empty one.
    """
    return {"output": [_format_stretch(row, fps) for row in highlights]}


def _format_stretch(row: Result, fps: Fraction) -> dict[str, Any]:
    if row.range is None or not row.range.frames:
        raise ValueError(f"highlight {row.seq} has no range, or no frame in it")
    start, end = row.range.start, row.range.end
    last = end.frame - 1
    seconds = (
        [frame / float(fps) for frame in (start.frame, last)] if fps else [_exact_seconds(start), _exact_seconds(end)]
    )
    return {"frame": [start.frame, last], "timestamps": [format_modelscope_time(each) for each in seconds]}


def format_modelscope_time(seconds: float) -> str:
    """`HH:MM:SS.mmm` as published: the seconds are rounded last, so that they may be 60.000."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{int(hours):02d}:{int(minutes):02d}:{rest:06.3f}"


def _exact_seconds(moment: Moment) -> float:
    return float(moment.seconds)


@dataclass(frozen=True, slots=True)
class ModelscopeShot:
    """A shot as the published pipeline writes it.

    Args:
        first, last: numbers of its first and its last frame, the last one inclusive.
        since, until: `HH:MM:SS.mmm`.
    """

    first: str
    last: str
    since: str
    until: str

    @staticmethod
    def from_range(span: TimeRange) -> ModelscopeShot:
        """The shot lasts until its last frame is no longer shown; that frame's number is inclusive."""
        last = max(span.start.frame, span.end.frame - 1)
        return ModelscopeShot(
            str(span.start.frame), str(last), format_clock_time(span.start.seconds), format_clock_time(span.end.seconds)
        )

    def format_span_to(self, last: ModelscopeShot) -> dict[str, list[str]]:
        """From this shot to that one."""
        return {"frame": [self.first, last.last], "timestamps": [self.since, last.until]}


def format_modelscope_scenes(
    stamps: Sequence[ModelscopeShot], probabilities: Sequence[float], threshold: float
) -> dict[str, Any]:
    """The answer of the published BaSSL pipeline on ModelScope: its keys, and every value but the counts a string.

    Shot numbers have four digits, more from shot 10,000 on; they stay in the order of the video there as well (the
    published pipeline sorts them as text).
    """
    groups = group_shots(probabilities, threshold)
    return {
        "shot_num": len(stamps),
        "shot_meta_list": [stamp.format_span_to(stamp) for stamp in stamps],
        "scene_num": len(groups),
        "scene_meta_list": [
            {"shot": [f"{shot:04d}" for shot in range(first, last + 1)], **stamps[first].format_span_to(stamps[last])}
            for first, last in groups
        ],
    }


def format_modelscope_tracks(
    lines: Iterable[Mapping[str, Any]], queries: int, fps: Fraction, output_video: str | None
) -> dict[str, Any]:
    """The answer of the published pipeline on ModelScope: its keys `masks`, `timestamps` and `output_video`.

    There a mask is an array of 0 and 1 for each query and frame; arrays of frames x height x width do not belong in
    JSON, so each mask is COCO RLE here (`pycocotools.mask.decode` gives the array), and all are in memory together,
    as large as the file. Where that pipeline renders a video, it leaves masks and timestamps out; here they stay.

    Args:
        lines: of the file, in its order (`parse_track_lines`).
        queries: how many there are.
        fps: frames a second by the video's clock; 0 where it has none: the exact times are taken then.
        output_video: where the overlay video is to be had.

    Returns:
        `masks`: for each query a list of RLE, one a frame; `timestamps`: `HH:MM:SS.mmm` since the first frame read,
        number of the frame over frames a second, as there, wherever the frame really lies.
    """
    masks: list[list[Any]] = [[] for _ in range(queries)]
    seconds: list[Fraction] = []
    for line in lines:
        if line["query"] == 0:
            seconds.append(Fraction(str(line["seconds"])))
        masks[line["query"]].append(line["mask"])
    times = [Fraction(index) / fps for index in range(len(seconds))] if fps else [each - seconds[0] for each in seconds]
    return {"masks": masks, "timestamps": [format_clock_time(each) for each in times], "output_video": output_video}


def format_modelscope_embedding(embedding: Embedding) -> dict[str, Any]:
    """The answer of the published R(2+1)D pipeline on ModelScope: the vector of the whole video, not normalised.

    ValueError for the embedding of a shot: that pipeline knows none.
    """
    if embedding.range is not None:
        raise ValueError(f"embedding {embedding.seq} is that of a shot")
    return {"video_embedding": embedding.vector.tolist()}
