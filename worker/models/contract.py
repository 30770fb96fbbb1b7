"""What a room is: four pure stages around one network, and how the loop in `worker.pipeline` feeds them.

A stage takes values and gives values: no database, queue, clock, environment or global.

| stage    | in words                                                        | runs      | device |
|----------|-----------------------------------------------------------------|-----------|--------|
| `plan`   | video + inputs + parameters -> how the film is to be read       | once      | no     |
| `encode` | one batch of windows of frames (uint8) -> one value per window  | per batch | yes    |
| `infer`  | all pieces + parameters -> scores                               | once      | yes    |
| `decode` | scores + film + parameters -> results and files                 | once      | no     |

A room that keeps pictures of frames it can only name while it reads (keyframes of shots) also gives a `picker`; one
whose pieces are too large to be held (masks) a `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared.catalog import MENU, Params
from shared.values import Embedding, FileMade, Result, Timeline, Video
from worker.models.placement import Placement
from worker.video.feed import Clip, Frames, Windows
from worker.video.pictures.keyframes import Crop, Place
from worker.video.transform import View

Prepare = Callable[[Frames], Frames]
"""From what a view shows of a frame to what goes through the network: pure, called in the thread that decodes."""


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """Read the film in order, or a part of it.

    Args:
        view: what is seen of a frame.
        windows: how the frames are cut.
        batch: windows in one call of `encode`; halved when the device runs out of memory.
        keyframe_short_side: with a `picker`, the size of the pictures kept.
        prepare: what is done with the view before frames are put together; None: nothing.
        since, until: the part of the film, in seconds since its first frame: frames whose time lies in it; `until` is
            exclusive, None for the end.
    """

    view: View
    windows: Windows
    batch: int = 1
    keyframe_short_side: int = 256
    prepare: Prepare | None = None
    since: Fraction = Fraction(0)
    until: Fraction | None = None


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """Read frames by number, and no others.

    Args:
        view: what is seen of a frame.
        clips: which frames go together.
        batch: clips in one call of `encode`.
        prepare: as in `FilmPlan`.
        decord: let decord fetch them where it is exact (`worker.video.reader.Reader.at`).
    """

    view: View
    clips: tuple[Clip, ...]
    batch: int = 1
    prepare: Prepare | None = None
    decord: bool = False


@dataclass(frozen=True, slots=True)
class PicturePlan:
    """Read keyframes that an earlier run kept; the film stays closed.

    Args:
        archive: the pictures.
        places: which of them go together, and what they answer for.
        crop: what `encode` sees of a picture.
        batch: windows in one call of `encode`.
    """

    archive: Path
    places: tuple[Place, ...]
    crop: Crop
    batch: int = 32


Plan = FilmPlan | ClipPlan | PicturePlan


@dataclass(frozen=True, slots=True)
class Piece:
    """What `encode` gave for one window: `value` answers for frames (or places) `start` to `stop` (exclusive)."""

    start: int
    stop: int
    value: Any


@dataclass(frozen=True, slots=True)
class Picks:
    """What a picker knows after one more piece.

    Args:
        pictures: frames whose pictures are wanted, with the file name of each; every one is `>= horizon` as it was.
        horizon: no frame before this will ever be wanted: its pixels may be let go.
    """

    pictures: tuple[tuple[int, str], ...] = ()
    horizon: int = 0


class Picker(Protocol):
    """Follows the pieces in order and names the pictures to keep; a state machine without I/O."""

    def feed(self, piece: Piece) -> Picks:
        """One more piece."""

    def end(self, frames: int) -> Picks:
        """The film is over after so many frames."""


class Writer(Protocol):
    """Takes the pieces of a room that are too large to be held, in order."""

    def feed(self, piece: Piece) -> Piece:
        """Write one down; what comes back is held, and is what `infer` gets."""

    def close(self) -> None:
        """There are no more, or the run is given up. Called once."""


@dataclass(frozen=True, slots=True)
class Reread:
    """What a finished run kept of its film: `encode` need not be done again.

    Args:
        pieces: as `encode` gave them.
        timeline: exact times of all frames.
        decode_failures: of the run that read the film.
    """

    pieces: tuple[Piece, ...]
    timeline: Timeline
    decode_failures: int = 0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What earlier runs yielded.

    Args:
        results: of the needed runs, by model.
        files: of the needed runs, by model and kind.
        kept: files by kind of a finished run that encoded the same film in the same way, if there is one.
    """

    results: Mapping[str, Sequence[Result]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    kept: Mapping[str, Path] = field(default_factory=dict)


Told = Callable[[int, int], None]
"""Takes how many frames of how many are done."""


def untold(_done: int, _of: int) -> None:
    """Nobody wants to know how far it is."""


@dataclass(frozen=True, slots=True)
class Film:
    """A film as a run has met it: its facts, what was read of it, and what earlier runs found.

    Args:
        path: the file.
        video: facts, with the decode failures counted.
        timeline: exact times of the frames decoded; where only a part was read, of all by their packets; empty where
            the film stayed closed.
        pictures: the archive of pictures that the picker asked for (zip, stored); None without a picker.
        scratch: a folder for files that `decode` makes; a writer's files are there already.
        inputs: what the needed runs yielded.
        first, stop: the frames that were read, `stop` exclusive.
        told: to be called by a `decode` that takes minutes: so many of so many frames are done. It may raise, to stop
            the run; a run that is silent for long is taken for hung.
    """

    path: Path
    video: Video
    timeline: Timeline
    pictures: Path | None
    scratch: Path
    inputs: Inputs
    first: int = 0
    stop: int = 0
    told: Told = untold

    @property
    def whole(self) -> bool:
        """Whether all frames were read, and not a part by its times: damaged frames then have no number."""
        return self.first == 0 and self.stop == len(self.timeline)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run yields."""

    results: tuple[Result, ...] = ()
    files: tuple[FileMade, ...] = ()
    embeddings: tuple[Embedding, ...] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """One model: how its network is loaded and its stages. Each room exports one as `ROOM` in `stages.py`.

    Args:
        name: as on the menu.
        load: weights folders in order of search + placement -> network; WeightsMissing, WeightsCorrupt.
        plan: (video, inputs, params, placement) -> Plan.
        encode: (network, frames_BTHWC, params) -> one value per window: an array with leading axis B, or a sequence.
            The windows of one call are of one shape.
        infer: (network, pieces, params) -> scores.
        decode: (scores, film, params) -> Outcome.
        picker: (params) -> Picker, for a room that keeps pictures.
        recall: (files by kind) -> scores, for a room whose files say all that `infer` found: a run that differs in
            parameters of `decode` alone then reads nothing and computes nothing.
        reread: (files by kind, video) -> Reread, for a room whose files say all that `encode` found: such a run then
            reads nothing and starts with `infer`.
        writer: (params, video, scratch) -> Writer, for a room whose pieces are too large to be held.
    """

    name: str
    load: Callable[[Sequence[Path], Placement], Any]
    plan: Callable[[Video, Inputs, Any, Placement], Plan]
    encode: Callable[[Any, Frames, Any], npt.NDArray[np.float32] | Sequence[Any]]
    infer: Callable[[Any, Sequence[Piece], Any], Any]
    decode: Callable[[Any, Film, Any], Outcome]
    picker: Callable[[Any], Picker] | None = None
    recall: Callable[[Mapping[str, Path]], Any] | None = None
    reread: Callable[[Mapping[str, Path], Video], Reread] | None = None
    writer: Callable[[Any, Video, Path], Writer] | None = None


@dataclass(slots=True)
class Model:
    """A room with its network in memory. The network is loaded at the first run that uses weights.

    Args:
        room: the stages.
        placement: where it computes.
        folders: where weights are looked for.
    """

    room: Room
    placement: Placement
    folders: tuple[Path, ...]
    _network: Any = None

    def network(self, params: Params) -> Any:
        """The network that these parameters need, or None."""
        if MENU[self.room.name].weights_for(params) is None:
            return None
        if self._network is None:
            self._network = self.room.load(self.folders, self.placement)
        return self._network
