"""`python -m tests.bench mttr`: from a video to masks for two queries, against the baseline, alternately.

No video is drawn on either side; ours writes its lines with the masks in them. A query is read by the text encoder in
every round, though a worker remembers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import typer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import RobertaTokenizer

from shared.catalog import MttrParams
from shared.values.tracks import TrackFrame
from tests.bench.baselines.masks import WINDOW_STEP, MaskBaseline, resize_frames
from tests.bench.measurement import Measurement, ModelMeasurement, cut_part, print_header, print_row
from tests.bench.random_weights import BenchNetworks, load_networks
from worker.models.contract import LoadedModel
from worker.models.mttr.config import WINDOWS
from worker.models.mttr.grounding import Grounding, normalise_query
from worker.models.mttr.network import MTTR
from worker.models.mttr.tracks.linking import choose_instance
from worker.models.mttr.tracks.masks import decode_rle
from worker.models.mttr.tracks.writer import make_track_frames, read_track_frames
from worker.networks.roberta import SPECIAL_TOKENS, tokenize_sentence
from worker.runtime.placement import Placement, resolve_placement

PARAMS = MttrParams(queries=("the man on the left", "a car that drives away"), overlay=False)


def bench_mttr(video_path: Path, start: float, seconds: float | None, rounds: int, baseline_rounds: int) -> None:
    """Measure and print.

    Args:
        video_path: a video.
        start, seconds: the part of it; None: all. The baseline holds every frame in full size.
        rounds, baseline_rounds: how often ours and the baseline are measured.
    """
    placement = resolve_placement("cpu", "auto", "torch", 0)
    torch.set_num_threads(placement.threads)
    with TemporaryDirectory(prefix="sceneworks-bench-") as name:
        folder = Path(name)
        path = cut_part(video_path, start, seconds, folder) if seconds else video_path
        mttr_networks = load_mttr_networks(placement)
        baseline, baseline_measurement = _build_baseline(mttr_networks), Measurement("baseline, fp32")
        measurements = [
            ModelMeasurement(f"ours, {precision}", model=_build_model(mttr_networks, precision))
            for precision in mttr_networks.by_precision
        ]
        for turn in range(max(rounds, baseline_rounds)):
            if turn < baseline_rounds:
                with baseline_measurement.measure_round():
                    baseline.run_pipeline(path, PARAMS.queries)
            for measurement, precision in zip(
                measurements if turn < rounds else (), mttr_networks.by_precision, strict=False
            ):
                measurement.model = _build_model(mttr_networks, precision)
                measurement.run_round(path, PARAMS, folder / f"{precision} {turn}")
        print_header(
            video_path.name,
            len(baseline.video_frames),
            mttr_networks.weights_label,
            f"video to masks, {len(PARAMS.queries)} queries",
        )
        print_row(baseline_measurement, baseline_measurement, baseline.step_seconds)
        for measurement in measurements:
            print_row(baseline_measurement, measurement, measurement.stage_seconds)
        _print_differences(mttr_networks, baseline, folder)


def _print_differences(mttr_networks: BenchNetworks[MTTR], baseline: MaskBaseline, folder: Path) -> None:
    """Compare the masks with those of the baseline: on the frames that it saw, then as stored by the first rounds."""
    same_frames = predict_track_frames(_build_model(mttr_networks, "fp32"), baseline)
    typer.echo(f"\nours, fp32, on the same frames: {describe_difference(baseline, same_frames)}")
    for precision in mttr_networks.by_precision:
        lines = read_track_frames(folder / f"{precision} 0" / "tracks.jsonl")
        typer.echo(f"ours, {precision}, on its own frames: {describe_difference(baseline, lines)}")


def load_mttr_networks(placement: Placement) -> BenchNetworks[MTTR]:
    """The network for both sides."""
    return load_networks("mttr", MTTR, placement, lambda loaded: loaded.placed)


def build_grounding(mttr_networks: BenchNetworks[MTTR], precision: str) -> Grounding:
    """What the model loads: the network with a tokenizer that remembers no sentence."""
    tokenizer = build_letter_tokenizer() if mttr_networks.loaded is None else mttr_networks.loaded.tokenizer
    return Grounding(mttr_networks.by_precision[precision], tokenizer)


def build_letter_tokenizer() -> RobertaTokenizer:
    """A tokenizer whose tokens are single letters, where no vocabulary was imported: sentences become longer."""
    ids = dict(SPECIAL_TOKENS) | {"<unk>": 3}
    ids |= {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()), start=len(ids))}
    return RobertaTokenizer(vocab=ids, merges=[])


def predict_track_frames(model: LoadedModel, baseline: MaskBaseline) -> Iterator[TrackFrame]:
    """What the model says of the frames that the baseline saw: a line for each frame and query."""
    network, video_size = model.get_network(PARAMS), baseline.video_frames.shape[1:3]
    for first in range(0, len(baseline.video_frames), WINDOW_STEP):
        window_TCHW = resize_frames(baseline.video_frames[first : first + WINDOWS.length], PARAMS.short_side)
        frames_1THWC = window_TCHW.permute(0, 2, 3, 1)[None].to(torch.uint8).numpy()
        [answers] = model.definition.encode(network, frames_1THWC, PARAMS)
        numbers = range(first, min(first + WINDOW_STEP, len(baseline.video_frames)))
        for query, answer in enumerate(answers):
            yield from make_track_frames(
                query, answer, choose_instance(answer, None, link=False).instance, numbers, video_size
            )


def describe_difference(baseline: MaskBaseline, lines: Iterable[TrackFrame]) -> str:
    """In words: how many pixels of all masks are others."""
    frames = differing = pixels = 0
    for line in lines:
        mask_HW = decode_rle(line.mask).astype(bool)
        differ = int(np.count_nonzero(mask_HW != baseline.masks[line.query][line.frame]))
        frames, differing, pixels = frames + 1, differing + differ, pixels + mask_HW.size
    masked = sum(int(np.count_nonzero(masks)) for masks in baseline.masks)
    return f"{frames} masks, {differing} of {pixels} pixels differ, {masked} are masked in the baseline"


def _build_baseline(mttr_networks: BenchNetworks[MTTR]) -> MaskBaseline:
    tokenizer = build_grounding(mttr_networks, "fp32").tokenizer
    return MaskBaseline(
        mttr_networks.baseline, lambda query: tokenize_sentence(tokenizer, normalise_query(query)), PARAMS.short_side
    )


def _build_model(mttr_networks: BenchNetworks[MTTR], precision: str) -> LoadedModel:
    return mttr_networks.build_model("mttr", precision, build_grounding(mttr_networks, precision))
