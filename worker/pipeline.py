"""The one loop that all models share: plan, encode batch by batch while the film decodes, infer, decode.

It owns what every room would otherwise repeat: reading ahead, timing, halving a batch that does not fit, progress and
cancellation. It knows no database and no queue: `Report` is how the world looks in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from shared.catalog import Params
from shared.errors import OutOfMemory
from shared.values import Progress, Stage, Timeline, Video
from worker.models.contract import Film, FilmPlan, Inputs, Model, Outcome, Picker, PicturePlan, Piece, Plan
from worker.video.feed import Feed, Window, cut, seen
from worker.video.pictures.keep import Keeper
from worker.video.pictures.keyframes import windows
from worker.video.reader import Reader

SHARES = {"plan": 0.01, "encode": 0.92, "infer": 0.02, "decode": 0.03, "store": 0.02}
"""Part of a run's progress that each stage stands for."""


class Report(Protocol):
    """How a run shows itself and is stopped."""

    def progress(self, progress: Progress) -> None:
        """So far; called after each batch. Raises to stop the run."""

    def note(self, action: str, **facts: Any) -> None:
        """Something worth a line in the log."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a run yielded and how it went.

    Args:
        outcome: results, and files in the scratch folder.
        stages: with the time spent in each.
        video: facts, with the decode failures counted.
        frames: frames of the film.
        frames_decoded: frames that left the decoder, re-reads for pictures included.
    """

    outcome: Outcome
    stages: tuple[Stage, ...]
    video: Video
    frames: int
    frames_decoded: int


@dataclass(slots=True)
class Stages:
    """The stages of one run: times them and reports."""

    report: Report
    stages: dict[str, Stage] = field(default_factory=lambda: {name: Stage(name) for name in SHARES})
    _began: float = 0.0

    @contextmanager
    def running(self, name: str, of: int = 1, unit: str = "step") -> Iterator[None]:
        """One stage, from waiting to done. Interrupted, it stays where it was."""
        self._began = time.monotonic()
        self.stages[name] = Stage(name, "running", of=of, unit=unit)
        self.report.progress(self.progress())
        yield
        ended = replace(self.stages[name], state="done", seconds=self._seconds())
        self.stages[name] = replace(ended, done=ended.of or ended.done)

    def advance(self, name: str, done: int) -> None:
        """So many units of the running stage are done: report it."""
        stage = self.stages[name]
        of = stage.of if stage.of is None or done <= stage.of else done
        self.stages[name] = replace(stage, done=done, of=of, seconds=self._seconds())
        self.report.progress(self.progress())

    def correct(self, name: str, of: int) -> None:
        """The number of units is now known for certain."""
        self.stages[name] = replace(self.stages[name], done=of, of=of)

    def progress(self) -> Progress:
        """As the ledger shows it."""
        parts = (SHARES[stage.name] * _part(stage) for stage in self.stages.values())
        return Progress(tuple(self.stages.values()), min(1.0, sum(parts)))

    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _part(stage: Stage) -> float:
    if stage.state == "done":
        return 1.0
    return min(1.0, stage.done / stage.of) if stage.of else 0.0


def execute(
    model: Model, path: Path, video: Video, inputs: Inputs, params: Params, scratch: Path, stages: Stages
) -> Execution:
    """One run of one model on one film.

    Args:
        model: a room and its network.
        path: the film.
        video: its facts.
        inputs: what the needed runs yielded.
        params: of this run.
        scratch: an empty folder for files.
        stages: progress; its report may raise to stop the run.
    """
    room = model.room
    with stages.running("plan"):
        recalled = room.recall is not None and bool(inputs.kept)
        network = None if recalled else model.network(params)
        plan = None if recalled else room.plan(video, inputs, params, model.placement)
    material = Material(model, network, path, video, inputs, params, scratch, stages)
    with stages.running("encode", of=plan_size(plan, video), unit=plan_unit(plan)):
        pieces, film, frames_decoded = material.read(plan)
    with stages.running("infer"):
        scores = room.recall(inputs.kept) if room.recall and recalled else room.infer(network, pieces, params)
    with stages.running("decode"):
        outcome = room.decode(scores, film, params)
    return Execution(outcome, tuple(stages.stages.values()), film.video, len(film.timeline), frames_decoded)


def plan_size(plan: Plan | None, video: Video) -> int:
    """Units of the stage `encode`."""
    match plan:
        case FilmPlan():
            return video.frames
        case PicturePlan():
            return len(plan.places)
        case None:
            return 0


def plan_unit(plan: Plan | None) -> str:
    """What `encode` counts."""
    return "frame" if isinstance(plan, FilmPlan) else "keyframe"


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

    def read(self, plan: Plan | None) -> tuple[list[Piece], Film, int]:
        """Pieces, what is known of the film now, and how many frames left the decoder."""
        match plan:
            case FilmPlan():
                return self._film(plan)
            case PicturePlan():
                pieces = self._encode(windows(plan.archive, plan.places, plan.crop), plan.batch, lambda _: None, len)
                return pieces, self._known(self.video, Timeline.nothing(self.video.clock), None), 0
            case None:
                return [], self._known(self.video, Timeline.nothing(self.video.clock), None), 0

    def _film(self, plan: FilmPlan) -> tuple[list[Piece], Film, int]:
        with Reader(self.path, threads=self.model.placement.decoder_threads, video=self.video) as reader:
            keeping = Keeping.of(self.model, plan, self.params, self.scratch, reader)
            with keeping:
                frames = seen(reader, plan.view, keeping.keeper)
                pieces = self._encode(cut(frames, plan.windows), plan.batch, keeping.follow, _frames)
                pictures = keeping.end(reader)
            self.stages.correct("encode", len(reader.timeline))
            video = self.video.with_failures(reader.decode_failures)
            return pieces, self._known(video, reader.timeline, pictures), reader.frames_decoded

    def _encode(
        self,
        made: Iterable[Window],
        batch: int,
        follow: Callable[[Piece], None],
        count: Callable[[list[Piece]], int],
    ) -> list[Piece]:
        encoder = Encoder(self.model, self.network, self.params, batch, self.stages.report)
        pieces: list[Piece] = []
        with Feed(made, batch) as feed:
            for ready in feed:
                for piece in encoder.pieces(ready.windows):
                    pieces.append(piece)
                    follow(piece)
                self.stages.advance("encode", count(pieces))
        return pieces

    def _known(self, video: Video, timeline: Timeline, pictures: Path | None) -> Film:
        return Film(self.path, video, timeline, pictures, self.scratch, self.inputs)


def _frames(pieces: list[Piece]) -> int:
    return pieces[-1].stop


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


@dataclass(slots=True)
class Encoder:
    """Sends windows through the network, fewer at a time once they did not fit."""

    model: Model
    network: Any
    params: Params
    batch: int
    report: Report

    def pieces(self, windows: tuple[Window, ...]) -> Iterator[Piece]:
        """A piece for each window, in order; OutOfMemory when a single one does not fit."""
        left = windows
        while left:
            now = left[: self.batch]
            values = self._try(np.stack([window.frames_THWC for window in now]))
            if values is None:
                self._halve(len(now))
                continue
            left = left[len(now) :]
            for window, value in zip(now, values, strict=True):
                yield Piece(window.start, window.stop, value[: window.stop - window.start])

    def _try(self, frames_BTHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
        try:
            return self.model.room.encode(self.network, frames_BTHWC, self.params)
        except (torch.OutOfMemoryError, MemoryError):
            return None
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # how torch says it on a CPU
                return None
            raise

    def _halve(self, size: int) -> None:
        if size == 1:
            raise OutOfMemory("One window of frames does not fit into the memory of the device.")
        self.batch = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.report.note("batch.halved", to=self.batch)
