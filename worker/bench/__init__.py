"""Measurements: `sceneworks-worker bench`. What is compared runs by turns in one session: medians and ratios."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from worker.bench.measured import sample
from worker.bench.scenes import bench_bassl
from worker.bench.shots import bench_shots, save_published

ROUNDS = 3


def main(arguments: Sequence[str]) -> int:
    """The command; gives its exit code."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "shots":
            bench_shots(given.film or sample(), given.seconds, given.rounds)
        case "bassl":
            bench_bassl(given.film or sample(), given.start, given.seconds, given.rounds, given.published_rounds)
        case "published":
            save_published(given.frames, given.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sceneworks-worker bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shots = commands.add_parser("shots", help="the model shots against ffmpeg and the published package")
    bassl = commands.add_parser("bassl", help="shots and bassl against the published pipeline's way")
    for command, seconds in ((shots, None), (bassl, 120.0)):
        command.add_argument("--film", type=Path, help="a video; by default the clip of the package iscc-samples")
        command.add_argument("--seconds", type=float, default=seconds, help="only so much of it")
        command.add_argument("--rounds", type=_rounds, default=ROUNDS, help="of each (default: %(default)s)")
    bassl.add_argument("--start", type=float, default=0.0, help="from this second on")
    bassl.add_argument(
        "--published-rounds",
        type=_rounds,
        default=1,
        help="of the published pipeline's way, which takes longer than the film (default: %(default)s)",
    )
    package = commands.add_parser("published", help="run the published TransNet V2 on saved frames")
    package.add_argument("frames", type=Path)
    package.add_argument("out", type=Path)
    return parser


def _rounds(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return int(text)
