"""Measurements: `sceneworks-worker bench`. What is compared runs by turns in one session: medians and ratios."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from worker.bench.length import MINUTES, bench_length, save_length
from worker.bench.likeness import bench_r2plus1d
from worker.bench.masks import bench_mttr
from worker.bench.measured import sample
from worker.bench.scenes import bench_bassl
from worker.bench.shots import bench_shots, save_published
from worker.bench.summaries import bench_clip_it

ROUNDS = 3

AGAINST: dict[str, tuple[str, float | None, Callable[[Path, float, float | None, int, int], None]]] = {
    "clip_it": ("a summary, and a second question about the same film", None, bench_clip_it),
    "mttr": ("masks for two queries", 3.0, bench_mttr),
    "r2plus1d": ("an embedding", 10.0, bench_r2plus1d),
}
"""Rooms measured against the published pipeline's way: what they yield, seconds of the film, the measurement."""


def main(arguments: Sequence[str]) -> int:
    """The command; gives its exit code."""
    given = _parser().parse_args(arguments)
    match given.command:
        case "shots":
            bench_shots(given.film or sample(), given.seconds, given.rounds)
        case "bassl":
            bench_bassl(given.film or sample(), given.start, given.seconds, given.rounds, given.published_rounds)
        case "length":
            bench_length(given.model, given.film or sample(), given.minutes, given.rate)
        case "published":
            save_published(given.frames, given.out)
        case "length_of":
            save_length(given.model, given.film, given.out)
        case name:
            measure = AGAINST[name][2]
            for film in given.films or [sample()]:
                measure(film, given.start, given.seconds, given.rounds, given.published_rounds)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sceneworks-worker bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shots = commands.add_parser("shots", help="the model shots against ffmpeg and the published package")
    bassl = commands.add_parser("bassl", help="shots and bassl against the published pipeline's way")
    for command, seconds in ((shots, None), (bassl, 120.0)):
        command.add_argument("--film", type=Path, help="a video; by default the clip of the package iscc-samples")
        _measuring(command, seconds)
    _published(bassl)
    for name, (what, seconds, _) in AGAINST.items():
        against = commands.add_parser(name, help=f"{what}, against the published pipeline's way")
        against.add_argument("films", nargs="*", type=Path, help="videos; by default the clip of iscc-samples")
        _measuring(against, seconds)
        _published(against)
    _length(commands.add_parser("length", help="seconds and memory of a room by the length of the film"))
    package = commands.add_parser("published", help="run the published TransNet V2 on saved frames")
    package.add_argument("frames", type=Path)
    package.add_argument("out", type=Path)
    one = commands.add_parser("length_of", help="one line of `length`, in a process of its own")
    for argument, kind in (("model", str), ("film", Path), ("out", Path)):
        one.add_argument(argument, type=kind)
    return parser


def _measuring(command: argparse.ArgumentParser, seconds: float | None) -> None:
    command.add_argument("--seconds", type=float, default=seconds, help="only so much of it (default: %(default)s)")
    command.add_argument("--rounds", type=_rounds, default=ROUNDS, help="of each (default: %(default)s)")


def _published(command: argparse.ArgumentParser) -> None:
    command.add_argument("--start", type=float, default=0.0, help="from this second on")
    command.add_argument(
        "--published-rounds",
        type=_rounds,
        default=1,
        help="of the published pipeline's way, which takes long (default: %(default)s)",
    )


def _length(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", choices=("clip_it", "mttr"))
    command.add_argument("--film", type=Path, help="what is shown again and again; by default the clip of iscc-samples")
    command.add_argument("--minutes", type=float, nargs="+", default=MINUTES, help="lengths (default: %(default)s)")
    command.add_argument("--rate", type=int, help="frames per second (default: 24; mttr 1)")


def _rounds(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return int(text)
