"""Measurements: `python -m tests.bench`. Whatever is compared runs alternately in one session: medians and ratios."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.embedding import bench_r2plus1d
from tests.bench.large_queue import DEFAULT_VIDEOS, bench_large_queue
from tests.bench.masks import bench_mttr
from tests.bench.measurement import sample_video
from tests.bench.scenes import bench_bassl
from tests.bench.shots import bench_shots, save_baseline
from tests.bench.summaries import bench_clip_it
from tests.bench.video_length import MINUTES, bench_length, save_length

DEFAULT_ROUNDS = 3

BASELINE_BENCHES: dict[str, tuple[str, float | None, Callable[[Path, float, float | None, int, int], None]]] = {
    "clip_it": ("a summary, and a second query about the same video", None, bench_clip_it),
    "mttr": ("masks for two queries", 3.0, bench_mttr),
    "r2plus1d": ("an embedding", 10.0, bench_r2plus1d),
}
"""Models measured against the published pipeline: what they compute, seconds of the video, the measurement."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    options = _build_parser().parse_args(arguments)
    match options.command:
        case "shots":
            bench_shots(options.video or sample_video(), options.seconds, options.rounds)
        case "bassl":
            bench_bassl(
                options.video or sample_video(), options.start, options.seconds, options.rounds, options.baseline_rounds
            )
        case "length":
            bench_length(options.model, options.video or sample_video(), options.minutes, options.rate)
        case "queue":
            bench_large_queue(options.videos)
        case "baseline":
            save_baseline(options.frames, options.out)
        case "length_of":
            save_length(options.model, options.video, options.out)
        case name:
            run_bench = BASELINE_BENCHES[name][2]
            for video_path in options.videos or [sample_video()]:
                run_bench(video_path, options.start, options.seconds, options.rounds, options.baseline_rounds)
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shots = commands.add_parser("shots", help="the model shots against ffmpeg and the published package")
    bassl = commands.add_parser("bassl", help="shots and bassl against the baseline")
    for command, seconds in ((shots, None), (bassl, 120.0)):
        command.add_argument("--video", type=Path, help="a video; by default the clip of the package iscc-samples")
        _add_measuring_options(command, seconds)
    _add_baseline_options(bassl)
    for name, (description, seconds, _) in BASELINE_BENCHES.items():
        bench_parser = commands.add_parser(name, help=f"{description}, against the baseline")
        bench_parser.add_argument("videos", nargs="*", type=Path, help="videos; by default the clip of iscc-samples")
        _add_measuring_options(bench_parser, seconds)
        _add_baseline_options(bench_parser)
    _add_length_options(commands.add_parser("length", help="seconds and memory of a model by the length of the video"))
    queue = commands.add_parser("queue", help="the API and beat while a batch has many queued runs")
    queue.add_argument("--videos", type=_parse_rounds, default=DEFAULT_VIDEOS, help="queued (default: %(default)s)")
    package = commands.add_parser("baseline", help="run the published TransNet V2 on saved frames")
    package.add_argument("frames", type=Path)
    package.add_argument("out", type=Path)
    length_parser = commands.add_parser("length_of", help="one line of `length`, in a process of its own")
    for argument, kind in (("model", str), ("video", Path), ("out", Path)):
        length_parser.add_argument(argument, type=kind)
    return parser


def _add_measuring_options(command: argparse.ArgumentParser, seconds: float | None) -> None:
    command.add_argument("--seconds", type=float, default=seconds, help="only so much of it (default: %(default)s)")
    command.add_argument("--rounds", type=_parse_rounds, default=DEFAULT_ROUNDS, help="of each (default: %(default)s)")


def _add_baseline_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--start", type=float, default=0.0, help="from this second on")
    command.add_argument(
        "--baseline-rounds",
        type=_parse_rounds,
        default=1,
        help="rounds of the baseline, which is slow (default: %(default)s)",
    )


def _add_length_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", choices=("clip_it", "mttr"))
    command.add_argument("--video", type=Path, help="repeated to each length; by default the clip of iscc-samples")
    command.add_argument("--minutes", type=float, nargs="+", default=MINUTES, help="lengths (default: %(default)s)")
    command.add_argument("--rate", type=int, help="frames per second (default: 24; mttr 1)")


def _parse_rounds(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)
