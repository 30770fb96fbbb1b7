"""`sceneworks-worker motion`: motion vectors of a video as image, arrays and summary."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.errors import exit_on_error


def motion_command(
    file: Annotated[Path, typer.Argument(help="H.264 or MPEG-4.", exists=True, dir_okay=False, readable=True)],
    out: Annotated[Path, typer.Option(help="Folder for the image and the arrays.", file_okay=False)] = Path(),
    start: Annotated[float, typer.Option(min=0, help="Seconds since the first frame.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="How many to read.")] = 100,
    grid: Annotated[int, typer.Option(min=8, max=256, help="Pixels of a cell.")] = 16,
    dense: Annotated[bool, typer.Option("--dense", help="Save a vector for each pixel, not for each cell.")] = False,
) -> None:
    """Read the motion vectors of a video: an image (PNG), arrays (NPZ) and a summary."""
    from worker.video.motion_plot import write_motion_report

    with exit_on_error():
        out.mkdir(parents=True, exist_ok=True)
        motion_report = write_motion_report(file, out, Fraction(str(start)), frames, grid, dense=dense)
    typer.echo("\n".join([motion_report.format_text(), *map(str, motion_report.files)]))
