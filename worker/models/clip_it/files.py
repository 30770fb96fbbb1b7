"""The files of the room: features that answer another question about the same film, the summary film, the poster."""

from __future__ import annotations

import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.errors import Internal, MediaCorrupt
from shared.values import FileMade, Moment, Timeline, Video
from worker.models.clip_it.config import ARCHITECTURE, POSTER_SHORT_SIDE
from worker.models.clip_it.summary import Sampled, Summary
from worker.models.contract import Film, Reread
from worker.video.pictures.keep import jpeg
from worker.video.reader import Frame, Reader
from worker.video.render import cuts
from worker.video.transform import View, see

ARRAYS = {"features": np.float32, "starts": np.int64, "pts": np.int64, "decode_failures": np.int64}
"""What `frame_features` holds; `pts` has the times of all frames, and at its end when the last is no longer shown."""


def keep(sampled: Sampled, timeline: Timeline, decode_failures: int, folder: Path) -> FileMade:
    """All that `reread` needs, as an NPZ; the same numbers make the same bytes."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "features": sampled.features,
        "starts": np.array(sampled.starts, np.int64),
        "pts": np.array([timeline.at(frame).pts for frame in range(len(timeline) + 1)], np.int64),
        "decode_failures": np.array(decode_failures, np.int64),
    }
    path = folder / "frame_features.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return FileMade("frame_features", path.name, "application/octet-stream", path)


def reread(files: Mapping[str, Path], video: Video) -> Reread:
    """What a finished run kept of its film.

    Args:
        files: of that run, by kind.
        video: the film's facts.

    Raises:
        Internal: the file is not what `keep` wrote.
    """
    arrays = _arrays(files["frame_features"])
    *pts, end_pts = arrays["pts"].tolist()
    sampled = Sampled(arrays["features"], tuple(arrays["starts"].tolist()), len(pts))
    timeline = Timeline(video.clock, array("q", pts), end_pts)
    return Reread(sampled.pieces, timeline, int(arrays["decode_failures"]))


def films(summary: Summary, film: Film) -> tuple[FileMade, ...]:
    """The summary as a film with its sound, and a picture of its best sampled frame; nothing of a film without frames.

    Raises:
        MediaCorrupt, StorageFull, Internal: as `worker.video.render.cuts`.
    """
    if not summary.selection.spans:
        return ()
    spans = [film.timeline.range(*span) for span in summary.selection.spans]
    best = film.timeline.at(summary.sampled.starts[int(np.argmax(summary.scores))])
    path, poster = film.scratch / "summary.mp4", film.scratch / "poster.jpg"
    with Reader(film.path, video=film.video) as reader:
        cuts(reader, spans, path, told=film.told)
        picture = see(View.short_side(POSTER_SHORT_SIDE), frame_at(reader, best), film.video)
    poster.write_bytes(jpeg(picture))
    return (
        FileMade("summary_film", path.name, "video/mp4", path),
        FileMade("poster", poster.name, "image/jpeg", poster),
    )


def frame_at(reader: Reader, moment: Moment) -> Frame:
    """The frame that is shown at a moment of a film that was read before.

    It is gone to where the packets have that time. Where they do not, or what is found there is another frame (damage,
    times that jump), the film is read from its start, as it was then.

    Raises:
        MediaCorrupt: it cannot be decoded any more.
    """
    for frame in _near(reader, moment):
        if frame.pts == moment.pts:
            return frame
    for frame in reader.frames():
        if frame.pts == moment.pts:
            return frame
    raise MediaCorrupt(f"frame {moment.frame} cannot be decoded again")


def _near(reader: Reader, moment: Moment) -> Iterator[Frame]:
    """What is found by going to that time, if anything."""
    times = reader.packets.pts
    number = bisect_left(times, moment.pts)
    whole = reader.packets.regular and not reader.video.decode_failures and not reader.video.truncated
    if whole and number < len(times) and times[number] == moment.pts:
        yield from reader.at([number])


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in ARRAYS}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise Internal("The kept features of a film cannot be read.") from error
    right = all(arrays[name].dtype == dtype for name, dtype in ARRAYS.items()) and arrays["pts"].size
    if not right or arrays["features"].shape != (len(arrays["starts"]), ARCHITECTURE.width):
        raise Internal("The kept features of a film do not belong together.")
    return arrays
