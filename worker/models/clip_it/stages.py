"""The stages of `clip_it`: sampled frames to features, features and sentences to scores, scores to a summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from shared.catalog import ClipItParams
from shared.values import Video
from worker.encoders.clip.network import MEAN, STD
from worker.encoders.clip.tokens import tokens
from worker.encoders.placed import Placed, normalised, settled
from worker.models.clip_it.captions import Guide, guide, source
from worker.models.clip_it.config import CROP, batch
from worker.models.clip_it.files import films, keep, reread
from worker.models.clip_it.network import ClipIt
from worker.models.clip_it.segments import bounds, change_points
from worker.models.clip_it.selection import select, stepped
from worker.models.clip_it.summary import Sampled, Summary
from worker.models.clip_it.weights import load
from worker.models.contract import Film, FilmPlan, Inputs, Outcome, Piece, Room
from worker.models.placement import Placement
from worker.video.feed import Frames, Windows
from worker.video.transform import View

Floats = npt.NDArray[np.float32]


def plan(_video: Video, _inputs: Inputs, params: ClipItParams, placement: Placement) -> FilmPlan:
    """Every so-manyth frame by itself, cropped as CLIP sees it in the thread that decodes.

    Raises:
        InvalidRequest: a sentence is too long for CLIP.
        ModelUnavailable: bf16 was asked for, and the place computes in fp32.
    """
    settled(params.precision, placement.precision)
    tokens(params.sentences)
    return FilmPlan(View.full(), Windows(1, params.sample_every), batch(placement.device), prepare=CROP.see)


def encode(network: Placed[ClipIt], frames_BTHWC: Frames, params: ClipItParams) -> Floats:
    """CLIP's features of frames, not normalised.

    Args:
        network: in place.
        frames_BTHWC: RGB uint8 (B, 1, 224, 224, 3), as `config.CROP` sees them.
        params: for the precision.

    Returns:
        (B, 512).
    """
    with network.computing(params.precision):
        pixels_N3HW = normalised(torch.from_numpy(frames_BTHWC).to(network.device), MEAN, STD)
        features_BD: Floats = network.network.clip.images(pixels_N3HW).float().cpu().numpy()
    return features_BD


def infer(network: Placed[ClipIt], pieces: Sequence[Piece], params: ClipItParams) -> Summary:
    """Scores of the sampled frames, the segments of the film and what is chosen of them; always in fp32.

    Args:
        network: in place.
        pieces: what `encode` gave, in order, or what an earlier run kept of it.
        params: sentences and budget.

    Raises:
        InvalidRequest: a sentence is too long for CLIP.
    """
    sampled = Sampled.of(pieces)
    if not sampled.starts:
        return Summary(sampled, None, np.empty(0, np.float32))
    tokens(params.sentences)
    asked = guide(params.sentences, source(params.captions), sampled.features)
    frames_TD = unit(sampled.features)
    scores_T = scored(network, frames_TD, asked)
    segments = bounds(change_points(frames_TD), sampled.starts, sampled.frames)
    scores_N = stepped(scores_T, sampled.starts, sampled.frames)
    return Summary(sampled, asked, scores_T, segments, select(scores_N, segments, sampled.starts, params.budget))


def decode(summary: Summary, film: Film, params: ClipItParams) -> Outcome:
    """Scores, segments, highlights and what guided them; the features for other questions, and on request films.

    Args:
        summary: of this run.
        film: with the exact times of its frames.
        params: whether the summary is to be a film too.
    """
    kept = keep(summary.sampled, film.timeline, film.video.decode_failures, film.scratch)
    made = films(summary, film) if params.film else ()
    return Outcome(summary.rows(film.timeline), (kept, *made))


def scored(network: Placed[ClipIt], frames_TD: Floats, asked: Guide) -> Floats:
    """How much each frame belongs into the summary: (T,) in 0..1. Each distinct sentence is encoded once.

    Args:
        network: in place.
        frames_TD: features of the sampled frames, each of length one.
        asked: what guides the summary.
    """
    place = {text: number for number, text in enumerate(asked.distinct)}
    with network.computing():
        ids_NL = torch.from_numpy(tokens(asked.distinct)).to(network.device)
        texts_ND: Floats = network.network.clip.texts(ids_NL).cpu().numpy()
        text_1S = unit(texts_ND[[place[text] for text in asked.sentences]].reshape(1, -1))
        frames_1TD, text_11S = (torch.from_numpy(rows)[None].to(network.device) for rows in (frames_TD, text_1S))
        scores_T: Floats = network.network.scorer.scores(frames_1TD, text_11S)[0].cpu().numpy()
    return scores_T


def unit(rows_ND: Floats) -> Floats:
    """Each row divided by its length."""
    rows: Floats = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows


ROOM = Room(name="clip_it", load=load, plan=plan, encode=encode, infer=infer, decode=decode, reread=reread)
