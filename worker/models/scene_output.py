"""The output of both models of scene boundaries: scores of shots, stored as arrays and loaded again; scenes; clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.catalog import SceneParams
from shared.errors import Internal
from shared.values import OutputFile, Result, VideoFacts
from shared.values.scenes import build_boundaries, build_scenes
from worker.models.contract import (
    ArrayOutput,
    ModelOutput,
    ProgressCallback,
    RenderContext,
    RunContext,
)
from worker.video.reader import VideoReader
from worker.video.render import cut_clip

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SceneScores:
    """Scores of N shots: enough to group the shots by another threshold without keyframes and without a network.

    Args:
        features: (N, D) float32, the feature of each shot.
        probabilities: (N,) float32, probability that a scene ends with the shot.
    """

    features: Floats
    probabilities: Floats

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SceneScores):
            return NotImplemented
        pairs = (self.features, other.features), (self.probabilities, other.probabilities)
        return all(np.array_equal(left, right) for left, right in pairs)

    __hash__ = None  # type: ignore[assignment] # arrays have none

    def to_arrays(self) -> tuple[ArrayOutput, ...]:
        """Both arrays, each as an NPY file of its own."""
        arrays = {"features": self.features, "probabilities": self.probabilities}
        return tuple(ArrayOutput(kind, f"{kind}.npy", {kind: array}) for kind, array in arrays.items())

    @staticmethod
    def load_arrays(files: Mapping[str, Path]) -> SceneScores:
        """Load the arrays of a finished run from its files by kind; Internal when they are not those of `to_arrays`."""
        features_ND, probabilities_N = (_load_array(files[kind]) for kind in ("features", "probabilities"))
        if features_ND.ndim != 2 or probabilities_N.shape != features_ND.shape[:1]:
            raise Internal("The stored features and probabilities do not belong together.")
        return SceneScores(features_ND, probabilities_N)


def build_scene_output(scores: SceneScores, context: RunContext, threshold: float) -> ModelOutput:
    """Build the output of a model of scene boundaries: a row for each shot and each scene, and both arrays.

    Args:
        scores: of this run, or loaded from one that differs in the threshold.
        context: with the rows of `shots` among its inputs.
        threshold: probability above which a scene ends with a shot.
    """
    shot_rows = [row for row in context.inputs.results["shots"] if row.kind == "shot"]
    boundary_rows = build_boundaries(shot_rows, scores.probabilities.tolist())
    return ModelOutput((*boundary_rows, *build_scenes(boundary_rows, threshold)), scores.to_arrays())


def render_scenes(
    results: Sequence[Result], context: RenderContext, params: SceneParams, report_progress: ProgressCallback
) -> tuple[OutputFile, ...]:
    """Cut each scene into a clip of its own, where `split_scenes` asks for it.

    Clips are exact to the frame and named `scene_0000.mp4` and so on, as the published pipeline names them.

    Args:
        results: of `build_scene_output`.
        context: the video, and the folder for the clips.
        params: whether to cut at all.
        report_progress: called after each clip with frames, since scenes differ in length.
    """
    scene_rows = [row for row in results if row.kind == "scene"]
    if not params.split_scenes:
        return ()
    return cut_scenes(context.path, context.run.video, scene_rows, context.scratch, report_progress)


def cut_scenes(
    path: Path, video: VideoFacts, scenes: Sequence[Result], folder: Path, report_progress: ProgressCallback
) -> tuple[OutputFile, ...]:
    """Cut rows of kind `scene` out of a video, in order.

    Args:
        path: the video.
        video: its facts.
        scenes: rows of kind `scene`; Internal for one without a range.
        folder: for the clips.
        report_progress: called after each clip with the frames up to its end, and those of the video.
    """
    clips = []
    with VideoReader(path, video=video) as reader:
        for row in scenes:
            clips.append(_cut_scene(reader, row, folder))
            report_progress(row.range.end.frame if row.range else 0, video.frames)
    return tuple(clips)


def _cut_scene(reader: VideoReader, scene: Result, folder: Path) -> OutputFile:
    if scene.range is None:
        raise Internal(f"Scene {scene.seq} has no range.")
    path = cut_clip(reader, scene.range, folder / f"scene_{scene.seq:04d}.mp4")
    return OutputFile("scene_clip", path.name, "video/mp4", path)


def _load_array(path: Path) -> Floats:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Internal("A stored array cannot be read.") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise Internal("A stored array is not of float32.")
    return array
