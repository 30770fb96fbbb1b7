"""The files of a run: the lines of its tracks, the overlay film, the masks as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from shared.catalog import MttrParams
from shared.values import FileMade
from shared.values.tracks import JSON_LINES
from worker.models.contract import Film
from worker.models.mttr.tracks.archive import archive
from worker.models.mttr.tracks.overlay import overlaid
from worker.models.mttr.tracks.writer import read, track_lines
from worker.video.feed import looking, seen
from worker.video.reader import Reader
from worker.video.render import film as make_film
from worker.video.transform import Picture, View

T = TypeVar("T")

EVERY = 16
"""Frames after which it is told how far the work is."""


def files(film: Film, params: MttrParams) -> tuple[FileMade, ...]:
    """What a run leaves: the lines always, the film and the pictures where they were asked for.

    Args:
        film: of which at least one frame was read, with what the writer wrote in its scratch folder.
        params: of the run.
    """
    lines = track_lines(film.scratch, film.timeline, film.scratch / "tracks.jsonl")
    made = [FileMade("tracks", lines.name, JSON_LINES, lines)]
    frames, of = film.stop - film.first, (film.stop - film.first) * (params.overlay + params.masks)
    if params.overlay:
        overlay = film.scratch / "overlay.mp4"
        overlay_film(film, params, lines, overlay, lambda done: film.told(done, of))
        made.append(FileMade("overlay_film", overlay.name, "video/mp4", overlay))
    if params.masks:
        begun = of - frames
        tracks = telling(read(lines), lambda done: film.told(begun + done, of), len(params.queries))
        pictures = archive(tracks, film.scratch / "masks.zip")
        made.append(FileMade("masks", pictures.name, "application/zip", pictures))
    return tuple(made)


def overlay_film(film: Film, params: MttrParams, lines: Path, out: Path, tell: Callable[[int], None]) -> Path:
    """The frames that were read, once more, with the masks of their lines; the sound and the times of the film.

    Args:
        film: the film and which part of it.
        params: for the queries.
        lines: the file of the tracks.
        out: the file to write.
        tell: takes how many frames are done.
    """

    def pictures(reader: Reader) -> Iterator[Picture]:
        frames = reader.frames(film.first, None if film.whole else film.stop)
        # As they were looked at: gaps are filled alike.
        shown = seen(frames, film.video, looking(View.full(), None), first=film.first)
        return telling((picture for picture in islice(shown, film.stop - film.first) if picture is not None), tell)

    with Reader(film.path, video=film.video) as reader:
        return make_film(
            overlaid(pictures(reader), read(lines), params.queries),
            out,
            film.video.clock.fps,
            times=film.timeline,
            first=film.first,
            sound=(reader, film.timeline.range(film.first, film.stop)),
        )


def telling(items: Iterable[T], tell: Callable[[int], None], a_frame: int = 1) -> Iterator[T]:
    """The same items, of which there are so many a frame; every so often it is told how many frames are through."""
    for number, item in enumerate(items):
        if number % (EVERY * a_frame) == 0:
            tell(number // a_frame)
        yield item
