"""Draw motion as an image: an arrow for each cell, its colour the direction, over some frames of a video."""

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
"""Longest side of a frame in the image."""

TILES_PER_ROW = 3
"""Frames in a row of the image."""

TILE_GAP = 8
"""Pixels between frames."""

FRAMES_DRAWN = 6
"""Frames in the image."""

MIN_ARROW_LENGTH, MAX_ARROW_LENGTH = 3.0, 48.0
"""Limits of the length of an arrow in pixels of the image: between them it is to scale."""


def draw_motion(motion: FrameMotion, cell: int = CELL_PIXELS) -> ImageArray:
    """Draw one frame, darkened, with an arrow for each cell that moved, from its old to its new position.

    The hue follows the direction: red to the right, then yellow, green (down), cyan (left), blue, magenta.

    Returns:
        RGB, as the frame is stored (not rotated), its longest side at most `TILE_PIXELS`.
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
    """Yield (tail, head, colour) of each cell that moved, as (x, y) in an image of `scale` times the video's size."""
    length_RC = np.hypot(cells.mean_RC2[..., 0], cells.mean_RC2[..., 1])
    for row, column in np.argwhere(length_RC > 0).tolist():
        displacement_2, length = cells.mean_RC2[row, column], float(length_RC[row, column])
        head = (np.array([column, row]) + 0.5) * cell * scale
        tail = head - displacement_2 / length * np.clip(length * scale, MIN_ARROW_LENGTH, MAX_ARROW_LENGTH)
        yield _round_point(tail), _round_point(head), direction_colour(displacement_2)


def direction_colour(displacement_2: npt.NDArray[np.floating]) -> tuple[int, int, int]:
    """Return the hue of a direction as RGB."""
    hue = np.degrees(np.arctan2(displacement_2[1], displacement_2[0])) % 360 / 2  # OpenCV counts 180 steps round
    red, green, blue = cv2.cvtColor(np.array([[[hue, 255, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _round_point(position: npt.NDArray[np.floating]) -> tuple[int, int]:
    return round(float(position[0])), round(float(position[1]))


@dataclass(slots=True)
class ArrowSheet:
    """Draws some frames of a video that is being read, side by side.

    Args:
        frame_numbers: frames to draw, counted from the first one read; a frame without vectors is replaced by the next
            one that has some.
        cell: pixels of a cell of the grid.
    """

    frame_numbers: list[int]
    cell: int = CELL_PIXELS
    _tiles: list[ImageArray] = field(default_factory=list)

    def draw_selected(self, motion_frames: Iterable[FrameMotion]) -> Iterator[FrameMotion]:
        """Yield all frames unchanged, and draw the selected ones as they pass."""
        pending = sorted(self.frame_numbers)
        for number, motion in enumerate(motion_frames):
            if pending and number >= pending[0] and len(motion.vectors_V):
                self._tiles.append(draw_motion(motion, self.cell))
                pending.pop(0)
            yield motion

    def save_png(self, path: Path) -> Path | None:
        """Save the drawn frames as PNG; None if none was drawn."""
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
    """The result of `write_motion_report`.

    Args:
        series: the motion.
        files: the arrays (NPZ), and the image (PNG) if there is one.
        seconds: time from the first decoded frame to the last one.
    """

    series: MotionSeries
    files: tuple[Path, ...]
    seconds: float

    def format_text(self) -> str:
        """Format a summary for people: frames by kind, time, speed; how far the blocks moved."""
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
    """Write the motion of a part of a video as arrays and as an image.

    Args:
        path: the video.
        out: folder for `<name of the video>_motion.npz` and `..._motion.png`; no image is written if no frame has
            motion vectors.
        start_s: seconds.
        frames: how many at most.
        cell: pixels of a cell of the grid.
        dense: dense maps instead of the grids.

    Raises:
        SceneworksError: as `read_motion` and `collect_motion`.
    """
    sheet = ArrowSheet([frames * number // FRAMES_DRAWN for number in range(FRAMES_DRAWN)], cell)
    motion_frames = read_motion(path, start_s, frames)
    first = list(islice(motion_frames, 1))  # opening and indexing the file is not part of the speed that is reported
    started = time.monotonic()
    series = collect_motion(sheet.draw_selected(chain(first, motion_frames)), cell, dense=dense)
    seconds = time.monotonic() - started
    numbers_path = series.save_npz(out / f"{path.stem}_motion.npz")
    image_path = sheet.save_png(out / f"{path.stem}_motion.png")
    return MotionReport(series, (numbers_path, image_path) if image_path else (numbers_path,), seconds)
