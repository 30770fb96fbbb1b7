"""The contact sheet: one image that shows the whole video, a cell for each shot."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

COLUMNS, MAX_CELLS = 6, 120
CELL_WIDTH, CELL_GAP, CAPTION_HEIGHT, SHEET_MARGIN = 240, 12, 24, 20
MAX_CELL_RATIO = 2.0
"""A cell is at most this many times as high as wide; a taller image is fitted into it."""

BACKGROUND, NUMBER_COLOUR, TIME_COLOUR = (18, 18, 20), (240, 240, 240), (150, 150, 158)
TEXT_SIZE, JPEG_QUALITY = 14, 85


def choose_shots(shots: int, max_cells: int = MAX_CELLS) -> list[int]:
    """Choose the shots that are shown: all, or `max_cells` evenly spread ones with the first and the last."""
    if shots <= max_cells:
        return list(range(shots))
    return [round(cell * (shots - 1) / (max_cells - 1)) for cell in range(max_cells)]


def draw_sheet(keyframes_zip: Path, cells: Sequence[tuple[str, str, str]], target: Path) -> Path:
    """Draw a sheet; one image at a time is in memory beside it.

    Args:
        keyframes_zip: zip archive of JPEGs.
        cells: for each cell the file name of its image, and the two texts under it: left and right. At least one.
        target: the JPEG to write.
    """
    with zipfile.ZipFile(keyframes_zip) as zip_file:
        with zip_file.open(cells[0][0]) as file, Image.open(file) as first:
            height = round(CELL_WIDTH * min(MAX_CELL_RATIO, first.height / first.width))
        columns = min(COLUMNS, len(cells))
        rows = -(-len(cells) // columns)
        size = (
            2 * SHEET_MARGIN + columns * (CELL_WIDTH + CELL_GAP) - CELL_GAP,
            2 * SHEET_MARGIN + rows * (height + CAPTION_HEIGHT + CELL_GAP) - CELL_GAP,
        )
        sheet = Image.new("RGB", size, BACKGROUND)
        for cell_index, (name, left, right) in enumerate(cells):
            row, column = divmod(cell_index, columns)
            corner = (
                SHEET_MARGIN + column * (CELL_WIDTH + CELL_GAP),
                SHEET_MARGIN + row * (height + CAPTION_HEIGHT + CELL_GAP),
            )
            with zip_file.open(name) as file, Image.open(file) as keyframe:
                _draw_cell(sheet, corner, ImageOps.contain(keyframe, (CELL_WIDTH, height)), height, left, right)
    sheet.save(target, "JPEG", quality=JPEG_QUALITY)
    return target


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], keyframe: Image.Image, height: int, left: str, right: str
) -> None:
    x, y = corner
    sheet.paste(keyframe, (x + (CELL_WIDTH - keyframe.width) // 2, y + (height - keyframe.height) // 2))
    pen, font, baseline = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_SIZE), y + height + CAPTION_HEIGHT - 6
    pen.text((x, baseline), left, NUMBER_COLOUR, font, anchor="ls")
    pen.text((x + CELL_WIDTH, baseline), right, TIME_COLOUR, font, anchor="rs")
