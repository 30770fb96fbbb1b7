"""The contract of a model: pure stages around one network, and what the loop in `worker.pipeline` passes between them.

A stage takes values and returns values: no database, queue, clock, environment or global.

| stage         | in words                                                          | runs      | device |
|---------------|-------------------------------------------------------------------|-----------|--------|
| `plan`        | video facts + inputs + parameters -> how the video is to be read  | once      | no     |
| `encode`      | one batch of windows of frames (uint8) -> one value per window    | per batch | yes    |
| `infer`       | all window outputs + parameters -> scores                         | once      | yes    |
| `postprocess` | scores + timeline + parameters -> results, arrays, embeddings     | once      | no     |
| `render`      | results + video -> files; the only stage that reads or writes any | once      | no     |

A model without files of its own has no `render`. A model that keeps frames which it can name only while it reads
(keyframes of shots) has a `make_keyframe_selector`. A model whose window outputs are too large for memory (masks) has
an `open_writer` that replaces each output by a small one; every other model passes `hold_outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from shared.catalog import CATALOG, Params
from shared.values import Embedding, OutputFile, Result, Timeline, VideoFacts
from worker.runtime.placement import Placement
from worker.video.keyframes.loader import CenterCrop, KeyframeWindow
from worker.video.transform import View
from worker.video.windows import ClipSpec, Frames, WindowSpec

NetworkT = TypeVar("NetworkT")
ParamsT = TypeVar("ParamsT", bound=Params)
EncodedT = TypeVar("EncodedT")
HeldT = TypeVar("HeldT")
ScoresT = TypeVar("ScoresT")
ValueT_co = TypeVar("ValueT_co", covariant=True)
EncodedT_contra = TypeVar("EncodedT_contra", contravariant=True)
HeldT_co = TypeVar("HeldT_co", covariant=True)

Preprocess = Callable[[Frames], Frames]
"""From the viewed pixels of a frame to the input of the network: pure, called in the thread that decodes."""


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """Read the video in order, or a part of it.

    Args:
        view: how a frame is scaled and converted for the model.
        windows: how frames are grouped into windows.
        batch_size: windows in one call of `encode`; halved when the device runs out of memory.
        keyframe_short_side: with a `make_keyframe_selector`, short side of the stored keyframes in pixels.
        preprocess: applied to the viewed frame before frames are stacked; None: nothing.
        start_time, end_time: the part to read, in seconds since the first frame: frames whose time lies in it;
            `end_time` is exclusive, None for the end of the video.
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
        view: how a frame is scaled and converted for the model.
        clips: which frames go together.
        batch_size: clips in one call of `encode`.
        preprocess: as in `VideoPlan`.
        allow_decord: let decord fetch them where it is exact (`VideoReader.read_frames_at`).
    """

    view: View
    clips: tuple[ClipSpec, ...]
    batch_size: int = 1
    preprocess: Preprocess | None = None
    allow_decord: bool = False


@dataclass(frozen=True, slots=True)
class KeyframePlan:
    """Read keyframes that an earlier run stored; the video itself is not opened.

    Args:
        keyframes_zip: the stored keyframes.
        windows: which of them go together, and which positions each window stands for.
        crop: the part of a keyframe that `encode` gets.
        batch_size: windows in one call of `encode`.
    """

    keyframes_zip: Path
    windows: tuple[KeyframeWindow, ...]
    crop: CenterCrop
    batch_size: int = 32


Plan = VideoPlan | ClipPlan | KeyframePlan


@dataclass(frozen=True, slots=True)
class WindowOutput(Generic[ValueT_co]):
    """The value that `encode` returned for one window: for frames (or positions) `start` to `stop`, exclusive."""

    start: int
    stop: int
    value: ValueT_co


@dataclass(frozen=True, slots=True)
class KeyframeRequests:
    """Which frames a selector wants after one more window.

    Args:
        frames: number and file name of each frame to store; every number is `>= horizon` of the request before.
        horizon: no frame before this one will ever be requested: its pixels may be released.
    """

    frames: tuple[tuple[int, str], ...] = ()
    horizon: int = 0


class KeyframeSelector(Protocol[EncodedT_contra]):
    """Follows the window outputs in order and names the frames to store; a state machine without I/O."""

    def add_output(self, output: WindowOutput[EncodedT_contra]) -> KeyframeRequests:
        """Take one more window."""

    def finish(self, frame_count: int) -> KeyframeRequests:
        """The video is over after `frame_count` frames."""


class OutputWriter(Protocol[EncodedT_contra, HeldT_co]):
    """Takes the window outputs in order and decides what stays in memory of each."""

    def write_output(self, output: WindowOutput[EncodedT_contra]) -> WindowOutput[HeldT_co]:
        """Write one down; the return value is held in memory, and passed to `infer`."""

    def close(self) -> None:
        """There are no more, or the run was given up. Called once."""


class OutputHolder(Generic[EncodedT]):
    """The writer of a model whose outputs fit into memory: writes nothing and holds each output as it is."""

    def write_output(self, output: WindowOutput[EncodedT]) -> WindowOutput[EncodedT]:
        """Return the output unchanged."""
        return output

    def close(self) -> None:
        """Nothing is open."""


def hold_outputs(_params: Params, _video: VideoFacts, _scratch: Path) -> OutputHolder[EncodedT]:
    """Open the writer of a model whose outputs fit into memory."""
    return OutputHolder()


@dataclass(frozen=True, slots=True)
class CachedFeatures(Generic[ValueT_co]):
    """What a finished run stored of the same video, so that `encode` need not run again.

    Args:
        outputs: as `encode` returned them.
        timeline: exact times of all frames.
        decode_failures: of the run that read the video.
    """

    outputs: tuple[WindowOutput[ValueT_co], ...]
    timeline: Timeline
    decode_failures: int = 0


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Outputs of earlier runs.

    Args:
        results: of the needed runs, by model.
        files: of the needed runs, by model and kind.
        cached_files: files by kind of a finished run that encoded the same video in the same way, if there is one.
    """

    results: Mapping[str, Sequence[Result]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    cached_files: Mapping[str, Path] = field(default_factory=dict)


ProgressCallback = Callable[[int, int], None]
"""Called with (frames done, frames in all). It may raise, to stop the run."""


def ignore_progress(_done: int, _total: int) -> None:
    """A progress callback that does nothing."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run knows about its video once it was read: all that `postprocess` sees beside the scores.

    Args:
        video: facts, with the decode failures counted.
        timeline: exact times of the decoded frames; where only a part was read, of all frames by their packets; empty
            where the video was not opened.
        inputs: outputs of the needed runs.
        first_frame, stop_frame: the frames that were read, `stop_frame` exclusive.
    """

    video: VideoFacts
    timeline: Timeline
    inputs: RunInputs = field(default_factory=RunInputs)
    first_frame: int = 0
    stop_frame: int = 0

    @property
    def is_whole_video(self) -> bool:
        """Whether all frames were read, not a part selected by time: damaged frames then have no number."""
        return self.first_frame == 0 and self.stop_frame == len(self.timeline)


@dataclass(frozen=True, slots=True)
class RenderContext:
    """The files that `render` works on.

    Args:
        run: as `postprocess` saw it.
        path: the video.
        scratch: a folder for the rendered files; those of an `OutputWriter` are there already.
        keyframes_zip: the frames that the selector requested (ZIP, stored); None without a selector.
    """

    run: RunContext
    path: Path
    scratch: Path
    keyframes_zip: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ArrayOutput:
    """Arrays that become one file: NPY for one array, NPZ for several. The same numbers make the same bytes.

    Args:
        kind: of the artifact.
        name: of the file; `.npz` for several arrays.
        arrays: by name; an NPY file has one, whose name is not stored.
    """

    kind: str
    name: str
    arrays: Mapping[str, npt.NDArray[Any]]

    def save_in(self, folder: Path) -> OutputFile:
        """Write the file into `folder`."""
        path = folder / self.name
        if path.suffix == ".npz":
            np.savez(path, allow_pickle=False, **self.arrays)
        else:
            [array] = self.arrays.values()
            np.save(path, array, allow_pickle=False)
        return OutputFile(self.kind, self.name, "application/octet-stream", path)


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What `postprocess` returns: values only, nothing of it is in a file yet."""

    results: tuple[Result, ...] = ()
    arrays: tuple[ArrayOutput, ...] = ()
    embeddings: tuple[Embedding, ...] = ()


@dataclass(frozen=True, slots=True)
class RunOutput:
    """What a run yields: results, files (arrays first, then what `render` wrote), vectors for the search."""

    results: tuple[Result, ...] = ()
    files: tuple[OutputFile, ...] = ()
    embeddings: tuple[Embedding, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelDefinition(Generic[NetworkT, ParamsT, EncodedT, HeldT, ScoresT]):
    """One model: how its network is loaded, and its stages. Each model exports one as `MODEL` in `stages.py`.

    The type variables tie the stages together: mypy rejects a model whose `infer` returns what its `postprocess` does
    not take, or whose writer holds what its `infer` does not take.

    Args:
        name: as in the catalog.
        load_network: (weights folders in order of search, placement) -> network; WeightsMissing, WeightsCorrupt.
        plan: (video, inputs, params, placement) -> Plan.
        encode: (network, frames_BTHWC, params) -> one value per window: an array with leading axis B, or a sequence.
            The windows of one call are of one shape.
        infer: (network, window outputs, params) -> scores.
        postprocess: (scores, context, params) -> results, arrays and embeddings.
        open_writer: (params, video, scratch) -> OutputWriter; `hold_outputs` where outputs fit into memory.
        render: (results, files and video, params, progress) -> rendered files.
        make_keyframe_selector: (params) -> KeyframeSelector, for a model that stores keyframes.
        restore_scores: (files by kind) -> scores, for a model whose arrays hold all that `infer` found: a run that
            differs in parameters of `postprocess` alone then reads nothing and computes nothing.
        restore_features: (files by kind, video) -> CachedFeatures, for a model whose arrays hold all that `encode`
            found: such a run then reads nothing and starts with `infer`.
    """

    name: str
    load_network: Callable[[Sequence[Path], Placement], NetworkT]
    plan: Callable[[VideoFacts, RunInputs, ParamsT, Placement], Plan]
    encode: Callable[[NetworkT, Frames, ParamsT], npt.NDArray[np.float32] | Sequence[EncodedT]]
    open_writer: Callable[[ParamsT, VideoFacts, Path], OutputWriter[EncodedT, HeldT]]
    infer: Callable[[NetworkT, Sequence[WindowOutput[HeldT]], ParamsT], ScoresT]
    postprocess: Callable[[ScoresT, RunContext, ParamsT], ModelOutput]
    render: Callable[[Sequence[Result], RenderContext, ParamsT, ProgressCallback], tuple[OutputFile, ...]] | None = None
    make_keyframe_selector: Callable[[ParamsT], KeyframeSelector[EncodedT]] | None = None
    restore_scores: Callable[[Mapping[str, Path]], ScoresT] | None = None
    restore_features: Callable[[Mapping[str, Path], VideoFacts], CachedFeatures[HeldT]] | None = None


AnyModelDefinition = ModelDefinition[Any, Any, Any, Any, Any]
"""Some model, as the loop sees it: which types its stages exchange was checked where it was defined."""


@dataclass(slots=True)
class LoadedModel:
    """A model with its network in memory. The network is loaded at the first run that uses weights.

    Args:
        definition: the stages.
        placement: where it computes.
        weights_dirs: folders that are searched for weights.
    """

    definition: AnyModelDefinition
    placement: Placement
    weights_dirs: tuple[Path, ...]
    _network: Any = None

    def get_network(self, params: Params) -> Any:
        """The network that these parameters need, or None where they need no weights."""
        if CATALOG[self.definition.name].weights_for(params) is None:
            return None
        if self._network is None:
            self._network = self.definition.load_network(self.weights_dirs, self.placement)
        return self._network
