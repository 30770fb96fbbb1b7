"""What a model of scene boundaries found out about the shots of a film, as arrays that are kept and read again."""

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
from worker.video.reader import VideoReader
from worker.video.render import cut_clip

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SceneScores:
    """N shots. Whoever has these needs neither pictures nor a network to group the shots by another threshold.

    Args:
        features: (N, D) float32, the feature of each shot.
        probabilities: (N,) float32, that a scene ends with the shot.
    """

    features: Floats
    probabilities: Floats

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SceneScores):
            return NotImplemented
        pairs = (self.features, other.features), (self.probabilities, other.probabilities)
        return all(np.array_equal(left, right) for left, right in pairs)

    __hash__ = None  # type: ignore[assignment] # arrays have none

    def save_arrays(self, folder: Path) -> tuple[OutputFile, ...]:
        """Both arrays as NPY files in `folder`; the same numbers make the same bytes."""
        arrays = {"features": self.features, "probabilities": self.probabilities}
        return tuple(_save_array(kind, array, folder) for kind, array in arrays.items())

    @staticmethod
    def load_arrays(files: Mapping[str, Path]) -> SceneScores:
        """The arrays of a finished run, from its files by kind. Internal when they are not what `save_arrays` wrote."""
        features_ND, probabilities_N = (_load_array(files[kind]) for kind in ("features", "probabilities"))
        if features_ND.ndim != 2 or probabilities_N.shape != features_ND.shape[:1]:
            raise Internal("The kept features and probabilities do not belong together.")
        return SceneScores(features_ND, probabilities_N)


def build_scene_output(
    scores: SceneScores,
    rows: Sequence[Result],
    params: SceneParams,
    threshold: float,
    path: Path,
    video: VideoFacts,
    folder: Path,
) -> tuple[tuple[Result, ...], tuple[OutputFile, ...]]:
    """What both models of scene boundaries yield: a row for each shot and each scene; both arrays, clips on request.

    Args:
        scores: of this run, or recalled from one that differs in the threshold.
        rows: what the run of `shots` found.
        params: whether each scene is to be a clip too.
        threshold: probability above which a scene ends with a shot.
        path, video: the film and its facts.
        folder: for the files.
    """
    boundary_rows = build_boundaries([row for row in rows if row.kind == "shot"], scores.probabilities.tolist())
    scene_rows = build_scenes(boundary_rows, threshold)
    clips = cut_scenes(path, video, scene_rows, folder) if params.split_scenes else ()
    return (*boundary_rows, *scene_rows), scores.save_arrays(folder) + clips


def cut_scenes(path: Path, video: VideoFacts, scenes: Sequence[Result], folder: Path) -> tuple[OutputFile, ...]:
    """Each scene as a clip of its own, exact to the frame: `scene_0000.mp4` and so on, as the published pipeline does.

    Args:
        path: the film.
        video: its facts.
        build_scenes: rows of kind `scene`.
        folder: for the clips.
    """
    with VideoReader(path, video=video) as reader:
        return tuple(_cut_scene(reader, row, folder) for row in scenes)


def _cut_scene(reader: VideoReader, scene: Result, folder: Path) -> OutputFile:
    if scene.range is None:
        raise Internal(f"Scene {scene.seq} has no range.")
    path = cut_clip(reader, scene.range, folder / f"scene_{scene.seq:04d}.mp4")
    return OutputFile("scene_clip", path.name, "video/mp4", path)


def _save_array(kind: str, array: Floats, folder: Path) -> OutputFile:
    path = folder / f"{kind}.npy"
    np.save(path, array, allow_pickle=False)
    return OutputFile(kind, path.name, "application/octet-stream", path)


def _load_array(path: Path) -> Floats:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Internal("A kept array cannot be read.") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise Internal("A kept array is not of float32.")
    return array
