"""Motion as a picture: an arrow for each cell, its colour the direction, over some frames of a film."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.video.motion import CELL, Grid, Motion, Survey, grid, motions, survey
from worker.video.transform import Picture

TILE = 640
"""Longest side of a frame in the picture."""

ACROSS = 3
"""Frames in a row."""

GAP = 8
"""Pixels between frames."""

DRAWN = 6
"""Frames in the picture."""

SHORTEST, LONGEST = 3.0, 48.0
"""Length of an arrow in the picture: between these it is to scale."""


def draw(motion: Motion, cell: int = CELL) -> Picture:
    """One frame, darkened, with an arrow for each cell that moved, from where it was to where it is.

    The colour goes round with the direction: red to the right, then yellow, green (down), cyan (left), blue, magenta.

    Returns:
        RGB, as the picture is stored (not turned), its longest side at most `TILE`.
    """
    seen = motion.picture.to_ndarray(format="rgb24")
    scale = min(1.0, TILE / max(seen.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in seen.shape[:2])
    canvas = np.ascontiguousarray(cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA) // 2)
    cells = grid(motion.vectors_V, motion.picture.height, motion.picture.width, cell)
    for tail, head, colour in arrows(cells, cell, scale):
        cv2.arrowedLine(canvas, tail, head, colour, 1, cv2.LINE_AA, tipLength=0.3)
    said = f"{motion.moment.frame} {motion.kind}  {motion.moment.timecode}"
    cv2.putText(canvas, said, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas.astype(np.uint8)


def arrows(
    cells: Grid, cell: int, scale: float
) -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int, int]]]:
    """(tail, head, colour) of each cell that moved, as (x, y) in a picture that has `scale` times the film's size."""
    length_RC = np.hypot(cells.mean_RC2[..., 0], cells.mean_RC2[..., 1])
    for row, column in np.argwhere(length_RC > 0).tolist():
        move_2, length = cells.mean_RC2[row, column], float(length_RC[row, column])
        head = (np.array([column, row]) + 0.5) * cell * scale
        tail = head - move_2 / length * np.clip(length * scale, SHORTEST, LONGEST)
        yield _point(tail), _point(head), colour(move_2)


def colour(move_2: npt.NDArray[np.floating]) -> tuple[int, int, int]:
    """The hue of a direction, RGB."""
    hue = np.degrees(np.arctan2(move_2[1], move_2[0])) % 360 / 2  # OpenCV counts 180 steps round
    red, green, blue = cv2.cvtColor(np.array([[[hue, 255, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _point(at: npt.NDArray[np.floating]) -> tuple[int, int]:
    return round(float(at[0])), round(float(at[1]))


@dataclass(slots=True)
class Sheet:
    """Some frames of a film that is being read, side by side.

    Args:
        wanted: frames to draw, counted from the first that comes; for one without vectors the next that has some.
        cell: of the grid.
    """

    wanted: list[int]
    cell: int = CELL
    _tiles: list[Picture] = field(default_factory=list)

    def watch(self, coming: Iterable[Motion]) -> Iterator[Motion]:
        """Hand on what comes, and draw what is wanted of it."""
        left = sorted(self.wanted)
        for number, motion in enumerate(coming):
            if left and number >= left[0] and len(motion.vectors_V):
                self._tiles.append(draw(motion, self.cell))
                left.pop(0)
            yield motion

    def save(self, path: Path) -> Path | None:
        """The frames as PNG; None when there was none to draw."""
        if not self._tiles:
            return None
        rows = [_beside(self._tiles[at : at + ACROSS]) for at in range(0, len(self._tiles), ACROSS)]
        Image.fromarray(_below(rows)).save(path, "PNG")
        return path


def _beside(tiles: list[Picture]) -> Picture:
    high, wide = max(tile.shape[0] for tile in tiles), sum(tile.shape[1] + GAP for tile in tiles) - GAP
    row, left = np.zeros((high, wide, 3), np.uint8), 0
    for tile in tiles:
        row[: tile.shape[0], left : left + tile.shape[1]] = tile
        left += tile.shape[1] + GAP
    return row


def _below(rows: list[Picture]) -> Picture:
    return _beside([np.ascontiguousarray(row.transpose(1, 0, 2)) for row in rows]).transpose(1, 0, 2)


@dataclass(frozen=True, slots=True)
class Study:
    """What `study` found and made.

    Args:
        survey: the motion.
        files: numbers and picture.
        seconds: from when the film was open to the last frame.
    """

    survey: Survey
    files: tuple[Path, ...]
    seconds: float

    def text(self) -> str:
        """A summary for people: frames by kind, time, speed; how far the blocks moved."""
        facts, frames = self.survey.facts(), len(self.survey.kinds)
        kinds = ", ".join(f"{count} {kind}" for kind, count in facts["frames"].items())
        said = f"{frames} frames ({kinds}) from {self.survey.moments[0].timecode}, {frames / self.seconds:.0f}/s"
        if not facts["blocks"]:
            return said
        far = f"{facts['mean']:.2f} pixels on average, 95 % of them up to {facts['p95']:.2f}"
        return f"{said}\n{facts['blocks']} blocks moved {far}"


def study(path: Path, out: Path, since: Fraction, frames: int, cell: int = CELL, *, whole: bool = False) -> Study:
    """The motion of a part of a film as numbers and as a picture.

    Args:
        path: the film.
        out: folder for `<name of the film>_motion.npz` and `..._motion.png`; the picture is left out where no frame has
            motion vectors.
        since: seconds.
        frames: how many at most.
        cell: of the grid.
        whole: dense maps in place of the grids.

    Raises:
        SceneworksError: as `motions` and `survey`.
    """
    sheet = Sheet([frames * number // DRAWN for number in range(DRAWN)], cell)
    coming = motions(path, since, frames)
    first = list(islice(coming, 1))
    began = time.monotonic()
    found = survey(sheet.watch(chain(first, coming)), cell, whole=whole)
    seconds = time.monotonic() - began
    numbers = found.save(out / f"{path.stem}_motion.npz")
    picture = sheet.save(out / f"{path.stem}_motion.png")
    return Study(found, (numbers, picture) if picture else (numbers,), seconds)
