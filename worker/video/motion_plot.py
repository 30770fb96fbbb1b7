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

from worker.video.motion import (
    CELL_PIXELS,
    FrameMotion,
    MotionGrid,
    MotionSeries,
    build_grid,
    collect_motion,
    read_motion,
)
from worker.video.transform import ImageArray

TILE_PIXELS = 640
"""Longest side of a frame in the picture."""

TILES_PER_ROW = 3
"""Frames in a row."""

TILE_GAP = 8
"""Pixels between frames."""

FRAMES_DRAWN = 6
"""Frames in the picture."""

MIN_ARROW_LENGTH, MAX_ARROW_LENGTH = 3.0, 48.0
"""Length of an arrow in the picture: between these it is to scale."""


def draw_motion(motion: FrameMotion, cell: int = CELL_PIXELS) -> ImageArray:
    """One frame, darkened, with an arrow for each cell that moved, from where it was to where it is.

    The colour goes round with the direction: red to the right, then yellow, green (down), cyan (left), blue, magenta.

    Returns:
        RGB, as the picture is stored (not turned), its longest side at most `TILE_PIXELS`.
    """
    image = motion.av_frame.to_ndarray(format="rgb24")
    scale = min(1.0, TILE_PIXELS / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    canvas = np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) // 2)
    cells = build_grid(motion.vectors_V, motion.av_frame.height, motion.av_frame.width, cell)
    for tail, head, colour in iter_arrows(cells, cell, scale):
        cv2.arrowedLine(canvas, tail, head, colour, 1, cv2.LINE_AA, tipLength=0.3)
    caption = f"{motion.moment.frame} {motion.kind}  {motion.moment.timecode}"
    cv2.putText(canvas, caption, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas.astype(np.uint8)


def iter_arrows(
    cells: MotionGrid, cell: int, scale: float
) -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int, int]]]:
    """(tail, head, colour) of each cell that moved, as (x, y) in a picture that has `scale` times the film's size."""
    length_RC = np.hypot(cells.mean_RC2[..., 0], cells.mean_RC2[..., 1])
    for row, column in np.argwhere(length_RC > 0).tolist():
        displacement_2, length = cells.mean_RC2[row, column], float(length_RC[row, column])
        head = (np.array([column, row]) + 0.5) * cell * scale
        tail = head - displacement_2 / length * np.clip(length * scale, MIN_ARROW_LENGTH, MAX_ARROW_LENGTH)
        yield _round_point(tail), _round_point(head), direction_colour(displacement_2)


def direction_colour(displacement_2: npt.NDArray[np.floating]) -> tuple[int, int, int]:
    """The hue of a direction, RGB."""
    hue = np.degrees(np.arctan2(displacement_2[1], displacement_2[0])) % 360 / 2  # OpenCV counts 180 steps round
    red, green, blue = cv2.cvtColor(np.array([[[hue, 255, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _round_point(position: npt.NDArray[np.floating]) -> tuple[int, int]:
    return round(float(position[0])), round(float(position[1]))


@dataclass(slots=True)
class ArrowSheet:
    """Some frames of a film that is being read, side by side.

    Args:
        frame_numbers: frames to draw, counted from the first that comes; for one without vectors the next that has some.
        cell: of the grid.
    """

    frame_numbers: list[int]
    cell: int = CELL_PIXELS
    _tiles: list[ImageArray] = field(default_factory=list)

    def draw_selected(self, motion_frames: Iterable[FrameMotion]) -> Iterator[FrameMotion]:
        """Hand on what comes, and draw what is wanted of it."""
        pending = sorted(self.frame_numbers)
        for number, motion in enumerate(motion_frames):
            if pending and number >= pending[0] and len(motion.vectors_V):
                self._tiles.append(draw_motion(motion, self.cell))
                pending.pop(0)
            yield motion

    def save_png(self, path: Path) -> Path | None:
        """The frames as PNG; None when there was none to draw."""
        if not self._tiles:
            return None
        rows = [
            _join_horizontally(self._tiles[at : at + TILES_PER_ROW]) for at in range(0, len(self._tiles), TILES_PER_ROW)
        ]
        Image.fromarray(_join_vertically(rows)).save(path, "PNG")
        return path


def _join_horizontally(tiles: list[ImageArray]) -> ImageArray:
    height, width = max(tile.shape[0] for tile in tiles), sum(tile.shape[1] + TILE_GAP for tile in tiles) - TILE_GAP
    row, left = np.zeros((height, width, 3), np.uint8), 0
    for tile in tiles:
        row[: tile.shape[0], left : left + tile.shape[1]] = tile
        left += tile.shape[1] + TILE_GAP
    return row


def _join_vertically(rows: list[ImageArray]) -> ImageArray:
    return _join_horizontally([np.ascontiguousarray(row.transpose(1, 0, 2)) for row in rows]).transpose(1, 0, 2)


@dataclass(frozen=True, slots=True)
class MotionReport:
    """What `write_motion_report` found and made.

    Args:
        collect_motion: the motion.
        files: numbers and picture.
        seconds: from when the film was open to the last frame.
    """

    series: MotionSeries
    files: tuple[Path, ...]
    seconds: float

    def format_text(self) -> str:
        """A summary for people: frames by kind, time, speed; how far the blocks moved."""
        statistics, frames = self.series.compute_statistics(), len(self.series.kinds)
        kinds = ", ".join(f"{count} {kind}" for kind, count in statistics["frames"].items())
        headline = f"{frames} frames ({kinds}) from {self.series.moments[0].timecode}, {frames / self.seconds:.0f}/s"
        if not statistics["blocks"]:
            return headline
        distance = f"{statistics['mean']:.2f} pixels on average, 95 % of them up to {statistics['p95']:.2f}"
        return f"{headline}\n{statistics['blocks']} blocks moved {distance}"


def write_motion_report(
    path: Path, out: Path, start_s: Fraction, frames: int, cell: int = CELL_PIXELS, *, dense: bool = False
) -> MotionReport:
    """The motion of a part of a film as numbers and as a picture.

    Args:
        path: the film.
        out: folder for `<name of the film>_motion.npz` and `..._motion.png`; the picture is left out where no frame has
            motion vectors.
        start_s: seconds.
        frames: how many at most.
        cell: of the grid.
        dense: dense maps in place of the grids.

    Raises:
        SceneworksError: as `read_motion` and `collect_motion`.
    """
    sheet = ArrowSheet([frames * number // FRAMES_DRAWN for number in range(FRAMES_DRAWN)], cell)
    motion_frames = read_motion(path, start_s, frames)
    first = list(islice(motion_frames, 1))
    started = time.monotonic()
    series = collect_motion(sheet.draw_selected(chain(first, motion_frames)), cell, dense=dense)
    seconds = time.monotonic() - started
    numbers_path = series.save_npz(out / f"{path.stem}_motion.npz")
    image_path = sheet.save_png(out / f"{path.stem}_motion.png")
    return MotionReport(series, (numbers_path, image_path) if image_path else (numbers_path,), seconds)
