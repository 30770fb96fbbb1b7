"""The stages of `mttr`: windows to answers, answers to tracks, tracks to files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from shared.catalog import MttrParams
from shared.errors import Internal
from shared.values import Video
from worker.encoders.placed import MEAN, STD, Placed, settled
from worker.models.contract import Film, FilmPlan, Inputs, Outcome, Piece, Room
from worker.models.mttr.answer import Answer
from worker.models.mttr.config import FRAMES_TOGETHER, WINDOWS
from worker.models.mttr.grounding import Grounding
from worker.models.mttr.network import MTTR, Prediction, Seen, Videos
from worker.models.mttr.resize import Resize
from worker.models.mttr.tracks.files import files
from worker.models.mttr.tracks.summary import Track, tracks
from worker.models.mttr.tracks.writer import Tracker
from worker.models.mttr.weights import load
from worker.models.placement import Placement
from worker.video.feed import Frames
from worker.video.transform import View


def plan(_video: Video, _inputs: Inputs, params: MttrParams, placement: Placement) -> FilmPlan:
    """Windows of the part that was asked for, one at a time, resized in the thread that decodes.

    Raises:
        ModelUnavailable: bf16 was asked for, and the place computes in fp32.
    """
    settled(params.precision, placement.precision)
    return FilmPlan(
        View.full(),
        WINDOWS,
        prepare=Resize(params.short_side).see,
        since=seconds(params.start_s),
        until=None if params.end_s is None else seconds(params.end_s),
    )


def seconds(told: float) -> Fraction:
    """The decimal number that was meant: 0.04 is the time of frame 1 at 25 a second, and no later."""
    return Fraction(repr(told))


def encode(network: Grounding, frames_BTHWC: Frames, params: MttrParams) -> list[tuple[Answer, ...]]:
    """What the network says of windows: an answer for each query.

    Args:
        network: in place.
        frames_BTHWC: RGB uint8 (B, T, H, W, 3), as `Resize` sees them; T is less than 24 at the end of a film.
        params: for the queries and the precision.

    Raises:
        InvalidRequest: a query has more tokens than the network has positions for.
    """
    words = [network.words(query) for query in params.queries]
    with network.placed.computing(params.precision):
        return [answers(network.placed, torch.from_numpy(frames_THWC), words) for frames_THWC in frames_BTHWC]


def answers(placed: Placed[MTTR], frames_THWC: Tensor, words: Sequence[Tensor]) -> tuple[Answer, ...]:
    """One window: seen once, then asked about each query by itself, so that memory holds the work of one."""
    height, width = frames_THWC.shape[1:3]
    seen = placed.network.look(Videos(normalised(frames_THWC.to(placed.device))))
    together = FRAMES_TOGETHER if placed.device.type == "cpu" else len(frames_THWC)
    return tuple(answer(placed.network, seen, words_1LC, (height, width), together) for words_1LC in words)


def answer(network: MTTR, seen: Seen, words_1LC: Tensor, size: tuple[int, int], together: int) -> Answer:
    """One window and one query; `size` is that of the frames, `together` how many of them go at a time."""
    parts = [said(network.answer(part, words_1LC)) for part in seen.split(together)]
    referred_TN, kernels_TNK, features_TKhw = (
        torch.cat(some).contiguous().cpu().numpy() for some in zip(*parts, strict=True)
    )
    return Answer(referred_TN, kernels_TNK, features_TKhw, *size)


def said(prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
    """After the last layer, in float32: the probability of each instance, its kernels, the features of the pixels."""
    referred_NQ = prediction.referred_DNQ2[-1].softmax(dim=-1)[..., 0]
    return referred_NQ, prediction.kernels_DNQK[-1], prediction.features_NKhw.float()


def normalised(frames_THWC: Tensor) -> Tensor:
    """RGB uint8 -> float32 (T, 1, 3, H, W), by the mean and deviation of ImageNet; channels last."""
    mean, std = (torch.tensor(values, device=frames_THWC.device) for values in (MEAN, STD))
    return frames_THWC.float().div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)[:, None]


def infer(_network: Grounding, pieces: Sequence[Piece], _params: MttrParams) -> tuple[Track, ...]:
    """A track for each query.

    Args:
        pieces: as the writer gave them back.
    """
    return tracks(pieces)


def decode(tracks: Sequence[Track], film: Film, params: MttrParams) -> Outcome:
    """A row for each query, and the files. A film without frames yields nothing.

    Args:
        tracks: of this run.
        film: with what the writer wrote in its scratch folder.
        params: for the queries and the files that are wanted.
    """
    if film.first == film.stop:
        return Outcome()
    if len(tracks) != len(params.queries):
        raise Internal("The tracks are not those of the queries.")
    span = film.timeline.range(film.first, film.stop)
    rows = (
        track.result(seq, query, span) for seq, (track, query) in enumerate(zip(tracks, params.queries, strict=True))
    )
    return Outcome(tuple(rows), files(film, params))


ROOM = Room(name="mttr", load=load, plan=plan, encode=encode, infer=infer, decode=decode, writer=Tracker)
