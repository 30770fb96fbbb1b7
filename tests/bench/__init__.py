"""Measurements: `sceneworks-worker bench`. What is compared runs by turns in one session: medians and ratios."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.embedding import bench_r2plus1d
from tests.bench.masks import bench_mttr
from tests.bench.measurement import sample_video
from tests.bench.scenes import bench_bassl
from tests.bench.shots import bench_shots, save_baseline
from tests.bench.summaries import bench_clip_it
from tests.bench.video_length import MINUTES, bench_length, save_length

DEFAULT_ROUNDS = 3

BASELINE_BENCHES: dict[str, tuple[str, float | None, Callable[[Path, float, float | None, int, int], None]]] = {
    "clip_it": ("a summary, and a second question about the same film", None, bench_clip_it),
    "mttr": ("masks for two queries", 3.0, bench_mttr),
    "r2plus1d": ("an embedding", 10.0, bench_r2plus1d),
}
"""Rooms measured against the published pipeline's way: what they yield, seconds of the film, the measurement."""


def main(arguments: Sequence[str]) -> int:
    """The command; gives its exit code."""
    options = _build_parser().parse_args(arguments)
    match options.command:
        case "shots":
            bench_shots(options.film or sample_video(), options.seconds, options.rounds)
        case "bassl":
            bench_bassl(
                options.film or sample_video(), options.start, options.seconds, options.rounds, options.published_rounds
            )
        case "length":
            bench_length(options.model, options.film or sample_video(), options.minutes, options.rate)
        case "published":
            save_baseline(options.frames, options.out)
        case "length_of":
            save_length(options.model, options.film, options.out)
        case name:
            run_bench = BASELINE_BENCHES[name][2]
            for video_path in options.films or [sample_video()]:
                run_bench(video_path, options.start, options.seconds, options.rounds, options.published_rounds)
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sceneworks-worker bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shots = commands.add_parser("shots", help="the model shots against ffmpeg and the published package")
    bassl = commands.add_parser("bassl", help="shots and bassl against the published pipeline's way")
    for command, seconds in ((shots, None), (bassl, 120.0)):
        command.add_argument("--film", type=Path, help="a video; by default the clip of the package iscc-samples")
        _add_measuring_options(command, seconds)
    _add_baseline_options(bassl)
    for name, (description, seconds, _) in BASELINE_BENCHES.items():
        bench_parser = commands.add_parser(name, help=f"{description}, against the published pipeline's way")
        bench_parser.add_argument("films", nargs="*", type=Path, help="videos; by default the clip of iscc-samples")
        _add_measuring_options(bench_parser, seconds)
        _add_baseline_options(bench_parser)
    _add_length_options(commands.add_parser("length", help="seconds and memory of a room by the length of the film"))
    package = commands.add_parser("published", help="run the published TransNet V2 on saved frames")
    package.add_argument("frames", type=Path)
    package.add_argument("out", type=Path)
    length_parser = commands.add_parser("length_of", help="one line of `length`, in a process of its own")
    for argument, kind in (("model", str), ("film", Path), ("out", Path)):
        length_parser.add_argument(argument, type=kind)
    return parser


def _add_measuring_options(command: argparse.ArgumentParser, seconds: float | None) -> None:
    command.add_argument("--seconds", type=float, default=seconds, help="only so much of it (default: %(default)s)")
    command.add_argument("--rounds", type=_parse_rounds, default=DEFAULT_ROUNDS, help="of each (default: %(default)s)")


def _add_baseline_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--start", type=float, default=0.0, help="from this second on")
    command.add_argument(
        "--published-rounds",
        type=_parse_rounds,
        default=1,
        help="of the published pipeline's way, which takes long (default: %(default)s)",
    )


def _add_length_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", choices=("clip_it", "mttr"))
    command.add_argument("--film", type=Path, help="what is shown again and again; by default the clip of iscc-samples")
    command.add_argument("--minutes", type=float, nargs="+", default=MINUTES, help="lengths (default: %(default)s)")
    command.add_argument("--rate", type=int, help="frames per second (default: 24; mttr 1)")


def _parse_rounds(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return int(text)
