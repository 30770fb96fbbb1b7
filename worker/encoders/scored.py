"""What a model of scene boundaries found out about the shots of a film, as arrays that are kept and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.catalog import SceneParams
from shared.errors import Internal
from shared.values import FileMade, Result, Video
from shared.values.scenes import boundaries, scenes
from worker.video.reader import Reader
from worker.video.render import clip

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """N shots. Whoever has these needs neither pictures nor a network to group the shots by another threshold.

    Args:
        features: (N, D) float32, the feature of each shot.
        probabilities: (N,) float32, that a scene ends with the shot.
    """

    features: Floats
    probabilities: Floats

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scored):
            return NotImplemented
        pairs = (self.features, other.features), (self.probabilities, other.probabilities)
        return all(np.array_equal(one, another) for one, another in pairs)

    __hash__ = None  # type: ignore[assignment] # arrays have none

    def keep(self, folder: Path) -> tuple[FileMade, ...]:
        """Both arrays as NPY files in `folder`; the same numbers make the same bytes."""
        arrays = {"features": self.features, "probabilities": self.probabilities}
        return tuple(_keep(kind, array, folder) for kind, array in arrays.items())

    @staticmethod
    def read(files: Mapping[str, Path]) -> Scored:
        """The arrays of a finished run, from its files by kind. Internal when they are not what `keep` wrote."""
        features_ND, probabilities_N = (_read(files[kind]) for kind in ("features", "probabilities"))
        if features_ND.ndim != 2 or probabilities_N.shape != features_ND.shape[:1]:
            raise Internal("The kept features and probabilities do not belong together.")
        return Scored(features_ND, probabilities_N)


def told(
    scored: Scored,
    rows: Sequence[Result],
    params: SceneParams,
    threshold: float,
    path: Path,
    video: Video,
    folder: Path,
) -> tuple[tuple[Result, ...], tuple[FileMade, ...]]:
    """What both models of scene boundaries yield: a row for each shot and each scene; both arrays, clips on request.

    Args:
        scored: of this run, or recalled from one that differs in the threshold.
        rows: what the run of `shots` found.
        params: whether each scene is to be a clip too.
        threshold: probability above which a scene ends with a shot.
        path, video: the film and its facts.
        folder: for the files.
    """
    bounds = boundaries([row for row in rows if row.kind == "shot"], scored.probabilities.tolist())
    found = scenes(bounds, threshold)
    clips = cut_scenes(path, video, found, folder) if params.split_scenes else ()
    return (*bounds, *found), scored.keep(folder) + clips


def cut_scenes(path: Path, video: Video, scenes: Sequence[Result], folder: Path) -> tuple[FileMade, ...]:
    """Each scene as a clip of its own, exact to the frame: `scene_0000.mp4` and so on, as the published pipeline does.

    Args:
        path: the film.
        video: its facts.
        scenes: rows of kind `scene`.
        folder: for the clips.
    """
    with Reader(path, video=video) as reader:
        return tuple(_cut(reader, row, folder) for row in scenes)


def _cut(reader: Reader, scene: Result, folder: Path) -> FileMade:
    if scene.range is None:
        raise Internal(f"Scene {scene.seq} has no range.")
    path = clip(reader, scene.range, folder / f"scene_{scene.seq:04d}.mp4")
    return FileMade("scene_clip", path.name, "video/mp4", path)


def _keep(kind: str, array: Floats, folder: Path) -> FileMade:
    path = folder / f"{kind}.npy"
    np.save(path, array, allow_pickle=False)
    return FileMade(kind, path.name, "application/octet-stream", path)


def _read(path: Path) -> Floats:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Internal("A kept array cannot be read.") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise Internal("A kept array is not of float32.")
    return array
