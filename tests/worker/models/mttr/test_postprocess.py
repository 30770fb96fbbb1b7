"""From noise through the network to the masks of the published pipeline, all of them."""

from __future__ import annotations

import numpy as np
import torch

from tests.support.seeded_networks import build_mttr
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_tensor, relative_error
from tests.worker.models.mttr.synthetic_outputs import pad_tokens
from worker.models.mttr.network import VideoBatch, pad_videos
from worker.models.mttr.tracks.masks import MaskSizes, coco_predictions, mask_area, trajectory_scores, upscale_mask
from worker.models.mttr.tracks.window_prediction import compute_mask_logits

FIRST = (0, 102, 909, 4806, 341, 7, 3008, 5469, 2)
"""`a black bike used to perform tricks`, in tokens."""

SECOND = (0, 19517, 11, 909, 4655, 5469, 15, 10, 4806, 2)
"""`guy in black performing tricks on a bike`."""


def test_a_window_has_the_published_masks() -> None:
    """Scores of 50 instances, the one chosen, 540,000 pixels of its masks in ten frames."""
    wanted = np.load(GOLDEN / "mttr_post.npz")
    network = build_mttr().device_network.network
    with torch.inference_mode():
        prediction = network(VideoBatch(random_tensor(60, 10, 3, 96, 160)[:, None]), *pad_tokens(FIRST))
    scores_N = trajectory_scores(prediction.referred_DNQ2[-1].softmax(dim=-1)[..., 0].numpy())
    assert relative_error(scores_N, wanted["trajectory_scores"][0]) <= TOLERANCE
    chosen = int(scores_N.argmax())
    assert [chosen] == wanted["chosen"].tolist()
    logits_Thw = compute_mask_logits(prediction.kernels_DNQK[-1, :, chosen].numpy(), prediction.features_NKhw.numpy())
    sizes = MaskSizes((96, 160), (90, 150), (180, 300))
    made = np.stack([upscale_mask(logits_hw, sizes) for logits_hw in logits_Thw])
    masks = np.unpackbits(wanted["masks"])[: made.size].reshape(wanted["masks_shape"])[:, 0]
    assert np.count_nonzero(made != masks) <= 5


def test_the_evaluation_has_the_published_areas() -> None:
    """All 50 instances in two frames of two videos of different size, in a batch."""
    wanted = np.load(GOLDEN / "mttr_post.npz")
    videos = pad_videos([random_tensor(61, 4, 3, 96, 128), random_tensor(62, 3, 3, 64, 112)])
    network = build_mttr().device_network.network
    with torch.inference_mode():
        prediction = network(videos, *pad_tokens(FIRST, SECOND), torch.tensor([0, 2]))
    sizes = [MaskSizes((96, 128), (96, 128), (106, 134)), MaskSizes((96, 128), (64, 112), (74, 118))] * 2
    referred_RN, logits_RNhw = (
        prediction.referred_DNQ2[-1].softmax(dim=-1)[..., 0].numpy(),
        prediction.mask_logits().numpy(),
    )
    for row, size in enumerate(sizes):
        found = coco_predictions(row, referred_RN[row], logits_RNhw[row], size)
        assert relative_error(np.array([each["score"] for each in found]), wanted["a2d_scores"][row]) <= TOLERANCE
        areas = np.array([mask_area(each["segmentation"]) for each in found])
        assert np.abs(areas - wanted["a2d_area"][row]).max() <= 3
