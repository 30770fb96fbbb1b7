"""What a room is: four pure stages around one network, and how the loop in `worker.pipeline` feeds them.

A stage takes values and gives values: no database, queue, clock, environment or global.

| stage    | in words                                                        | runs      | device |
|----------|-----------------------------------------------------------------|-----------|--------|
| `plan`   | video + inputs + parameters -> how the film is to be read       | once      | no     |
| `encode` | one batch of windows of frames (uint8) -> one value per window  | per batch | yes    |
| `infer`  | all pieces + parameters -> scores                               | once      | yes    |
| `postprocess` | scores + film + parameters -> results and files                 | once      | no     |

A room that keeps pictures of frames it can only name while it reads (keyframes of shots) also gives a `make_keyframe_selector`; one
whose pieces are too large to be held (masks) a `open_writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared.catalog import CATALOG, Params
from shared.values import Embedding, OutputFile, Result, Timeline, VideoFacts
from worker.runtime.placement import Placement
from worker.video.keyframes.loader import CenterCrop, KeyframeWindow
from worker.video.transform import View
from worker.video.windows import ClipSpec, Frames, WindowSpec

Preprocess = Callable[[Frames], Frames]
"""From what a view shows of a frame to what goes through the network: pure, called in the thread that decodes."""


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """Read the film in order, or a part of it.

    Args:
        view: what is seen of a frame.
        windows: how the frames are cut.
        batch_size: windows in one call of `encode`; halved when the device runs out of memory.
        keyframe_short_side: with a `make_keyframe_selector`, the size of the pictures kept.
        preprocess: what is done with the view before frames are put together; None: nothing.
        start_time, end_time: the part of the film, in seconds since its first frame: frames whose time lies in it; `end_time` is
            exclusive, None for the end.
    """

    view: View
    windows: WindowSpec
    batch_size: int = 1
    keyframe_short_side: int = 256
    preprocess: Preprocess | None = None
    start_time: Fraction = Fraction(0)
    end_time: Fraction | None = None


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """Read frames by number, and no others.

    Args:
        view: what is seen of a frame.
        clips: which frames go together.
        batch_size: clips in one call of `encode`.
        preprocess: as in `VideoPlan`.
        allow_decord: let decord fetch them where it is exact (`worker.video.reader.Reader.at`).
    """

    view: View
    clips: tuple[ClipSpec, ...]
    batch_size: int = 1
    preprocess: Preprocess | None = None
    allow_decord: bool = False


@dataclass(frozen=True, slots=True)
class KeyframePlan:
    """Read keyframes that an earlier run kept; the film stays closed.

    Args:
        keyframes_zip: the pictures.
        windows: which of them go together, and what they answer for.
        crop: what `encode` sees of a picture.
        batch_size: windows in one call of `encode`.
    """

    keyframes_zip: Path
    windows: tuple[KeyframeWindow, ...]
    crop: CenterCrop
    batch_size: int = 32


Plan = VideoPlan | ClipPlan | KeyframePlan


@dataclass(frozen=True, slots=True)
class WindowOutput:
    """What `encode` gave for one window: `value` answers for frames (or places) `start` to `stop_frame` (exclusive)."""

    start: int
    stop: int
    value: Any


@dataclass(frozen=True, slots=True)
class KeyframeRequests:
    """What a picker knows after one more piece.

    Args:
        frames: frames whose pictures are wanted, with the file name of each; every one is `>= horizon` as it was.
        horizon: no frame before this will ever be wanted: its pixels may be let go.
    """

    frames: tuple[tuple[int, str], ...] = ()
    horizon: int = 0


class KeyframeSelector(Protocol):
    """Follows the pieces in order and names the pictures to keep; a state machine without I/O."""

    def add_output(self, output: WindowOutput) -> KeyframeRequests:
        """One more piece."""

    def finish(self, frame_count: int) -> KeyframeRequests:
        """The film is over after so many frames."""


class OutputWriter(Protocol):
    """Takes the pieces of a room that are too large to be held, in order."""

    def write_output(self, output: WindowOutput) -> WindowOutput:
        """Write one down; what comes back is held, and is what `infer` gets."""

    def close(self) -> None:
        """There are no more, or the run is given up. Called once."""


@dataclass(frozen=True, slots=True)
class CachedFeatures:
    """What a finished run kept of its film: `encode` need not be done again.

    Args:
        outputs: as `encode` gave them.
        timeline: exact times of all frames.
        decode_failures: of the run that read the film.
    """

    outputs: tuple[WindowOutput, ...]
    timeline: Timeline
    decode_failures: int = 0


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What earlier runs yielded.

    Args:
        results: of the needed runs, by model.
        files: of the needed runs, by model and kind.
        cached_files: files by kind of a finished run that encoded the same film in the same way, if there is one.
    """

    results: Mapping[str, Sequence[Result]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    cached_files: Mapping[str, Path] = field(default_factory=dict)


ProgressCallback = Callable[[int, int], None]
"""Takes how many frames of how many are done."""


def ignore_progress(_done: int, _total: int) -> None:
    """Nobody wants to know how far it is."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """A film as a run has met it: its facts, what was read of it, and what earlier runs found.

    Args:
        path: the file.
        video: facts, with the decode failures counted.
        timeline: exact times of the frames decoded; where only a part was read, of all by their packets; empty where
            the film stayed closed.
        frames: the archive of pictures that the picker asked for (zip, stored); None without a picker.
        scratch: a folder for files that `postprocess` makes; a writer's files are there already.
        inputs: what the needed runs yielded.
        first_frame, stop_frame: the frames that were read, `stop_frame` exclusive.
        report_progress: to be called by a `postprocess` that takes minutes: so many of so many frames are done. It may raise, to stop
            the run; a run that is silent for long is taken for hung.
    """

    path: Path
    video: VideoFacts
    timeline: Timeline
    keyframes_zip: Path | None
    scratch: Path
    inputs: RunInputs
    first_frame: int = 0
    stop_frame: int = 0
    report_progress: ProgressCallback = ignore_progress

    @property
    def is_whole_video(self) -> bool:
        """Whether all frames were read, and not a part by its times: damaged frames then have no number."""
        return self.first_frame == 0 and self.stop_frame == len(self.timeline)


@dataclass(frozen=True, slots=True)
class RunOutput:
    """What a run yields."""

    results: tuple[Result, ...] = ()
    files: tuple[OutputFile, ...] = ()
    embeddings: tuple[Embedding, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelDefinition:
    """One model: how its network is loaded and its stages. Each room exports one as `ROOM` in `stages.py`.

    Args:
        name: as on the menu.
        load_network: weights folders in order of search + placement -> network; WeightsMissing, WeightsCorrupt.
        plan: (video, inputs, params, placement) -> Plan.
        encode: (network, frames_BTHWC, params) -> one value per window: an array with leading axis B, or a sequence.
            The windows of one call are of one shape.
        infer: (network, pieces, params) -> scores.
        postprocess: (scores, film, params) -> Outcome.
        make_keyframe_selector: (params) -> Picker, for a room that keeps pictures.
        restore_scores: (files by kind) -> scores, for a room whose files say all that `infer` found: a run that differs in
            parameters of `postprocess` alone then reads nothing and computes nothing.
        restore_features: (files by kind, video) -> Reread, for a room whose files say all that `encode` found: such a run then
            reads nothing and starts with `infer`.
        open_writer: (params, video, scratch) -> Writer, for a room whose pieces are too large to be held.
    """

    name: str
    load_network: Callable[[Sequence[Path], Placement], Any]
    plan: Callable[[VideoFacts, RunInputs, Any, Placement], Plan]
    encode: Callable[[Any, Frames, Any], npt.NDArray[np.float32] | Sequence[Any]]
    infer: Callable[[Any, Sequence[WindowOutput], Any], Any]
    postprocess: Callable[[Any, RunContext, Any], RunOutput]
    make_keyframe_selector: Callable[[Any], KeyframeSelector] | None = None
    restore_scores: Callable[[Mapping[str, Path]], Any] | None = None
    restore_features: Callable[[Mapping[str, Path], VideoFacts], CachedFeatures] | None = None
    open_writer: Callable[[Any, VideoFacts, Path], OutputWriter] | None = None


@dataclass(slots=True)
class LoadedModel:
    """A room with its network in memory. The network is loaded at the first run that uses weights.

    Args:
        definition: the stages.
        placement: where it computes.
        weights_dirs: where weights are looked for.
    """

    definition: ModelDefinition
    placement: Placement
    weights_dirs: tuple[Path, ...]
    _network: Any = None

    def get_network(self, params: Params) -> Any:
        """The network that these parameters need, or None."""
        if CATALOG[self.definition.name].weights_for(params) is None:
            return None
        if self._network is None:
            self._network = self.definition.load_network(self.weights_dirs, self.placement)
        return self._network
