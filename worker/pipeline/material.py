"""What one run reads: the film in order or by number, or pictures that an earlier run kept; and what it encodes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from shared.catalog import Params
from shared.errors import FieldError, InvalidRequest
from shared.values import Timeline, Video
from worker.models.contract import (
    ClipPlan,
    Film,
    FilmPlan,
    Inputs,
    Model,
    Picker,
    PicturePlan,
    Piece,
    Plan,
    Reread,
    Writer,
)
from worker.pipeline.encoder import Encoder
from worker.pipeline.stages import Stages
from worker.video.feed import Feed, Frames, Window, cut, gather, looking, seen
from worker.video.pictures.keep import Keeper
from worker.video.pictures.keyframes import windows
from worker.video.reader import Reader

NEAR = Fraction(1, 10_000)
"""Seconds by which a time may miss its frame: people copy them rounded to the microsecond."""

UNITS = {FilmPlan: "frame", ClipPlan: "clip", PicturePlan: "keyframe"}
"""What the stage `encode` counts."""


@dataclass(frozen=True, slots=True)
class Read:
    """What came of reading: the pieces, what is known of the film now, and how many frames left the decoder."""

    pieces: list[Piece]
    film: Film
    frames_decoded: int = 0


def plan_size(plan: Plan | None, video: Video) -> int:
    """Units of the stage `encode`; that of a part of a film by its nominal rate, until it is read."""
    match plan:
        case FilmPlan(until=None) if not plan.since:
            return video.frames
        case FilmPlan():
            until = video.duration if plan.until is None else min(plan.until, video.duration)
            return max(1, round((until - plan.since) * video.clock.fps))
        case ClipPlan():
            return len(plan.clips)
        case PicturePlan():
            return len(plan.places)
        case None:
            return 0


def plan_unit(plan: Plan | None) -> str:
    """What `encode` counts."""
    return "frame" if plan is None else UNITS[type(plan)]


@dataclass(slots=True)
class Material:
    """What one run reads and encodes."""

    model: Model
    network: Any
    path: Path
    video: Video
    inputs: Inputs
    params: Params
    scratch: Path
    stages: Stages

    def read(self, plan: Plan | None) -> Read:
        """Everything that the plan names, encoded."""
        match plan:
            case FilmPlan():
                return self._film(plan)
            case ClipPlan():
                return self._clips(plan)
            case PicturePlan():
                pieces = self._encode(windows(plan.archive, plan.places, plan.crop), plan.batch, len)
                return Read(pieces, self._known(self.video, Timeline.nothing(self.video.clock)))
            case None:
                return Read([], self._known(self.video, Timeline.nothing(self.video.clock)))

    def again(self, reread: Reread) -> Read:
        """What an earlier run has kept; the film stays closed."""
        film = self._known(self.video.with_failures(reread.decode_failures), reread.timeline, stop=len(reread.timeline))
        return Read(list(reread.pieces), film)

    def _film(self, plan: FilmPlan) -> Read:
        with self._reader() as reader:
            first, stop = part(reader, plan)
            keeping = Keeping.of(self.model, plan, self.params, self.scratch, reader)
            with keeping:
                made = film_windows(reader, plan, first, stop, keeping.keeper)
                pieces = self._encode(made, plan.batch, lambda held: held[-1].stop - first, keeping.follow)
                pictures = keeping.end(reader)
            whole = first == 0 and stop is None
            timeline = reader.timeline if whole else packet_times(reader)
            read = pieces[-1].stop - first if pieces else 0
            self.stages.correct("encode", read)
            video = self.video.with_failures(reader.decode_failures)
            film = self._known(video, timeline, pictures, first=first, stop=first + read)
            return Read(pieces, film, reader.frames_decoded)

    def _clips(self, plan: ClipPlan) -> Read:
        with self._reader() as reader:
            pieces = self._encode(clip_windows(reader, plan), plan.batch, len)
            if plan.decord and reader.decord_refused:
                self.stages.report.note("decord.refused", reason=reader.decord_refused)
            timeline = packet_times(reader)
            return Read(pieces, self._known(self.video, timeline, stop=len(timeline)), reader.frames_decoded)

    def _reader(self) -> Reader:
        return Reader(self.path, threads=self.model.placement.decoder_threads, video=self.video)

    def _encode(
        self,
        made: Iterable[Window],
        batch: int,
        count: Callable[[list[Piece]], int],
        follow: Callable[[Piece], None] = lambda _: None,
    ) -> list[Piece]:
        encoder = Encoder(self.model, self.network, self.params, batch, self.stages.report)
        pieces: list[Piece] = []
        with self._writer() as writer, Feed(made, batch) as feed:
            for ready in feed:
                for piece in encoder.pieces(ready.windows):
                    pieces.append(writer.feed(piece) if writer else piece)
                    follow(piece)
                self.stages.advance("encode", count(pieces))
        return pieces

    @contextmanager
    def _writer(self) -> Iterator[Writer | None]:
        if self.model.room.writer is None:
            yield None
            return
        with closing(self.model.room.writer(self.params, self.video, self.scratch)) as writer:
            yield writer

    def _known(
        self, video: Video, timeline: Timeline, pictures: Path | None = None, first: int = 0, stop: int = 0
    ) -> Film:
        return Film(self.path, video, timeline, pictures, self.scratch, self.inputs, first, stop)


def part(reader: Reader, plan: FilmPlan) -> tuple[int, int | None]:
    """First frame and end (exclusive; None: the end of the film) of the part that a plan names.

    Raises:
        InvalidRequest: no frame lies in it.
    """
    if not plan.since and plan.until is None:
        return 0, None
    times, clock = reader.packets.pts, reader.clock

    def at(seconds: Fraction) -> int:
        return bisect_left(times, clock.start_pts + (seconds - NEAR) / clock.time_base)

    first, stop = at(plan.since), len(times) if plan.until is None else at(plan.until)
    if first >= stop:
        detail = f"No frame lies in this part of the film, which lasts {float(reader.video.duration):.3f} s."
        raise InvalidRequest(detail, errors=(FieldError("/params/start_s", "outside", detail),))
    return (0, None) if (first, stop) == (0, len(times)) else (first, stop)


def packet_times(reader: Reader) -> Timeline:
    """Exact times of all frames, read or not."""
    return Timeline(reader.clock, reader.packets.pts, reader.packets.end_pts)


def film_windows(
    reader: Reader, plan: FilmPlan, first: int = 0, stop: int | None = None, keeper: Keeper | None = None
) -> Iterator[Window]:
    """The windows of a film, or of its frames `first` to `stop`."""
    look = looking(plan.view, plan.prepare)
    pictures = seen(reader.frames(first, stop), reader.video, look, plan.windows.wants, keeper, first)
    return cut(pictures, plan.windows, first)


def clip_windows(reader: Reader, plan: ClipPlan) -> Iterator[Window]:
    """The windows of a plan that names its frames."""
    wanted = {frame for clip in plan.clips for frame in clip.frames}
    look = looking(plan.view, plan.prepare)

    def pictures() -> Iterator[tuple[int, Frames]]:
        for frame in reader.at(sorted(wanted), decord=plan.decord):
            yield frame.index, look(frame, reader.video)

    return gather(pictures(), plan.clips)


@dataclass(slots=True)
class Keeping:
    """The pictures of a room that has a picker; nothing at all for one that has none.

    A context manager: a run that is given up leaves no archive open.
    """

    keeper: Keeper | None = None
    picker: Picker | None = None
    _archive: Path | None = None

    @staticmethod
    def of(model: Model, plan: FilmPlan, params: Params, scratch: Path, reader: Reader) -> Keeping:
        """For one run."""
        if model.room.picker is None:
            return Keeping()
        keeper = Keeper(scratch / "pictures.zip", reader.video, plan.keyframe_short_side)
        return Keeping(keeper, model.room.picker(params))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.keeper is not None and self._archive is None:
            self.keeper.discard()

    def follow(self, piece: Piece) -> None:
        """Store the pictures that one more piece names, and let go of those that nothing can name any more."""
        if self.keeper is not None and self.picker is not None:
            picks = self.picker.feed(piece)
            self.keeper.take(picks.pictures, picks.horizon)

    def end(self, reader: Reader) -> Path | None:
        """The archive, after the last pictures and those that were let go too early."""
        if self.keeper is None or self.picker is None:
            return None
        picks = self.picker.end(len(reader.timeline))
        self.keeper.take(picks.pictures, picks.horizon)
        self._archive = self.keeper.close(reader.at)
        return self._archive
