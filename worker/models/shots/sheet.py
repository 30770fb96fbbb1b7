"""The contact sheet: one picture that shows the whole film, a cell for each shot."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

COLUMNS, MOST = 6, 120
WIDTH, GAP, CAPTION, MARGIN = 240, 12, 24, 20
TALLEST = 2.0
"""A cell is at most this many times as high as wide; a taller picture is fitted into it."""

GROUND, NUMBER, TIME = (18, 18, 20), (240, 240, 240), (150, 150, 158)
TEXT_SIZE, QUALITY = 14, 85


def chosen(shots: int, most: int = MOST) -> list[int]:
    """Which shots are shown: all, or `most` of them evenly spread with the first and the last among them."""
    if shots <= most:
        return list(range(shots))
    return [round(cell * (shots - 1) / (most - 1)) for cell in range(most)]


def draw(pictures: Path, cells: Sequence[tuple[str, str, str]], target: Path) -> Path:
    """Draw a sheet; one picture at a time is in memory beside it.

    Args:
        pictures: zip archive of JPEGs.
        cells: for each cell the file name of its picture, and the two texts under it: left and right. At least one.
        target: the JPEG to write.
    """
    with zipfile.ZipFile(pictures) as archive:
        with archive.open(cells[0][0]) as file, Image.open(file) as first:
            height = round(WIDTH * min(TALLEST, first.height / first.width))
        columns = min(COLUMNS, len(cells))
        rows = -(-len(cells) // columns)
        size = (2 * MARGIN + columns * (WIDTH + GAP) - GAP, 2 * MARGIN + rows * (height + CAPTION + GAP) - GAP)
        sheet = Image.new("RGB", size, GROUND)
        for place, (name, left, right) in enumerate(cells):
            row, column = divmod(place, columns)
            corner = (MARGIN + column * (WIDTH + GAP), MARGIN + row * (height + CAPTION + GAP))
            with archive.open(name) as file, Image.open(file) as picture:
                _cell(sheet, corner, ImageOps.contain(picture, (WIDTH, height)), height, left, right)
    sheet.save(target, "JPEG", quality=QUALITY)
    return target


def _cell(
    sheet: Image.Image, corner: tuple[int, int], picture: Image.Image, height: int, left: str, right: str
) -> None:
    x, y = corner
    sheet.paste(picture, (x + (WIDTH - picture.width) // 2, y + (height - picture.height) // 2))
    pen, font, base = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_SIZE), y + height + CAPTION - 6
    pen.text((x, base), left, NUMBER, font, anchor="ls")
    pen.text((x + WIDTH, base), right, TIME, font, anchor="rs")
