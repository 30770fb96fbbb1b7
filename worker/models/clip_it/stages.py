"""The stages of `clip_it`: sampled frames to features, features and sentences to scores, scores to a summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from shared.catalog import ClipItParams
from shared.values import VideoFacts
from worker.models.clip_it.captions import Guide, build_guide, make_caption_source
from worker.models.clip_it.config import CROP, default_batch_size
from worker.models.clip_it.files import build_feature_arrays, render_summary, restore_features
from worker.models.clip_it.network import ClipIt
from worker.models.clip_it.segments import find_change_points, segment_bounds
from worker.models.clip_it.selection import expand_scores, select_segments
from worker.models.clip_it.summary import SampledFrames, VideoSummary
from worker.models.clip_it.weights import load_network
from worker.models.contract import (
    ModelDefinition,
    ModelOutput,
    RunContext,
    RunInputs,
    VideoPlan,
    WindowOutput,
    hold_outputs,
)
from worker.networks.clip.network import CLIP_MEAN, CLIP_STD
from worker.networks.clip.tokens import tokenize_sentences
from worker.runtime.device import DeviceNetwork, normalise_frames, resolve_precision
from worker.runtime.placement import Placement
from worker.video.transform import View
from worker.video.windows import Frames, WindowSpec

Floats = npt.NDArray[np.float32]


def plan(_video: VideoFacts, _inputs: RunInputs, params: ClipItParams, placement: Placement) -> VideoPlan:
    """Plan every n-th frame as a window of its own; it is cropped for CLIP in the thread that decodes.

    Raises:
        InvalidRequest: a sentence is too long for CLIP.
        ModelUnavailable: bf16 was requested, and the placement computes in fp32.
    """
    resolve_precision(params.precision, placement.precision)
    tokenize_sentences(params.sentences)
    return VideoPlan(
        View.full_size(),
        WindowSpec(1, params.sample_every),
        default_batch_size(placement.device),
        preprocess=CROP.apply_to,
    )


def encode(network: DeviceNetwork[ClipIt], frames_BTHWC: Frames, params: ClipItParams) -> Floats:
    """Compute the CLIP features of frames, not normalised.

    Args:
        network: on its device.
        frames_BTHWC: RGB uint8 (B, 1, 224, 224, 3), cropped by `config.CROP`.
        params: for the precision.

    Returns:
        (B, 512).
    """
    with network.inference_context(params.precision):
        pixels_N3HW = normalise_frames(torch.from_numpy(frames_BTHWC).to(network.device), CLIP_MEAN, CLIP_STD)
        features_BD: Floats = network.network.clip.encode_images(pixels_N3HW).float().cpu().numpy()
    return features_BD


def infer(
    network: DeviceNetwork[ClipIt], outputs: Sequence[WindowOutput[Floats]], params: ClipItParams
) -> VideoSummary:
    """Score the sampled frames, find the segments of the video and select the summary; always in fp32.

    Args:
        network: on its device.
        outputs: of `encode`, in order, or as an earlier run stored them.
        params: sentences and budget.

    Raises:
        InvalidRequest: a sentence is too long for CLIP.
    """
    sampled = SampledFrames.from_outputs(outputs)
    if not sampled.starts:
        return VideoSummary(sampled, None, np.empty(0, np.float32))
    tokenize_sentences(params.sentences)
    guide = build_guide(params.sentences, make_caption_source(params.captions), sampled.features)
    frames_TD = normalise_rows(sampled.features)
    scores_T = score_frames(network, frames_TD, guide)
    segments = segment_bounds(find_change_points(frames_TD), sampled.starts, sampled.frame_count)
    scores_N = expand_scores(scores_T, sampled.starts, sampled.frame_count)
    return VideoSummary(
        sampled, guide, scores_T, segments, select_segments(scores_N, segments, sampled.starts, params.budget)
    )


def postprocess(summary: VideoSummary, context: RunContext, _params: ClipItParams) -> ModelOutput:
    """Build the rows (scores, segments, highlights, captions), and the features that answer another query.

    Args:
        summary: of this run.
        context: with the exact times of its frames.
    """
    arrays = build_feature_arrays(summary.sampled, context.timeline, context.video.decode_failures)
    return ModelOutput(summary.to_results(context.timeline), (arrays,))


def score_frames(network: DeviceNetwork[ClipIt], frames_TD: Floats, guide: Guide) -> Floats:
    """Score how much each frame belongs into the summary: (T,) in 0..1. Each distinct sentence is encoded once.

    Args:
        network: on its device.
        frames_TD: features of the sampled frames, each of length one.
        guide: the sentences that guide the summary.
    """
    row_of_text = {text: number for number, text in enumerate(guide.distinct_sentences)}
    with network.inference_context():
        ids_NL = torch.from_numpy(tokenize_sentences(guide.distinct_sentences)).to(network.device)
        texts_ND: Floats = network.network.clip.encode_texts(ids_NL).cpu().numpy()
        text_1S = normalise_rows(texts_ND[[row_of_text[text] for text in guide.sentences]].reshape(1, -1))
        frames_1TD, text_11S = (torch.from_numpy(rows)[None].to(network.device) for rows in (frames_TD, text_1S))
        scores_T: Floats = network.network.scorer.score_frames(frames_1TD, text_11S)[0].cpu().numpy()
    return scores_T


def normalise_rows(rows_ND: Floats) -> Floats:
    """Divide each row by its length."""
    rows: Floats = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows


MODEL = ModelDefinition(
    name="clip_it",
    load_network=load_network,
    plan=plan,
    encode=encode,
    open_writer=hold_outputs,
    infer=infer,
    postprocess=postprocess,
    render=render_summary,
    restore_features=restore_features,
)
