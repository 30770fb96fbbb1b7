"""Masks against a calculator: the pixels are counted in the comments."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from worker.evaluation import ReferringSample, boundary_f, mask_boundary, referring_metrics, region_j, score_masks
from worker.evaluation.masks import Rle


def block(top: int, left: int, height: int, width: int, size: tuple[int, int] = (100, 100)) -> np.ndarray:
    mask_HW = np.zeros(size, np.uint8)
    mask_HW[top : top + height, left : left + width] = 1
    return mask_HW


def rle(mask_HW: np.ndarray) -> Rle:
    encoded: Rle = coco_mask.encode(np.asfortranarray(mask_HW))
    return encoded


# J and F --------------------------------------------------------------------------------------------------------------


def test_regions_by_hand() -> None:
    """Two blocks of 4 pixels with 2 in common: 2 / 6."""
    assert region_j(block(0, 0, 2, 2, (4, 4)), block(0, 1, 2, 2, (4, 4))) == pytest.approx(2 / 6)
    nothing = np.zeros((4, 4), np.uint8)
    assert region_j(nothing, nothing) == 1
    assert region_j(nothing, block(0, 0, 1, 1, (4, 4))) == 0


def test_an_outline_by_hand() -> None:
    """Above and to the left of the object, and on its last row and column; none on the edge of the image."""
    drawn = ["00000", "01110", "01010", "01110", "00000"]
    assert mask_boundary(block(2, 2, 2, 2, (5, 5))).astype(int).tolist() == [[int(c) for c in row] for row in drawn]
    assert not mask_boundary(np.ones((5, 5), np.uint8)).any()
    assert mask_boundary(block(0, 0, 5, 2, (5, 5))).astype(int).tolist() == [[0, 1, 0, 0, 0]] * 5


def test_outlines_by_hand() -> None:
    """Squares of 20 x 20 in 100 x 100: an outline is a ring of 4 * 20 pixels, and 0.8 % of 141.4 is 1.1, so 2 pixels.

    Moved by 3: of the other ring the 20 nearest pixels of either horizontal side are within 2 pixels; those of the
    upright sides are 3 away but for 2 at either end of the one that lies between the others' horizontal sides: 44 of
    80 both ways. Moved by 2 all lie near.
    """
    square = block(20, 20, 20, 20)
    assert mask_boundary(square).sum() == 80
    assert boundary_f(square, block(20, 23, 20, 20)) == pytest.approx(44 / 80)
    assert boundary_f(block(20, 23, 20, 20), square) == pytest.approx(44 / 80)
    assert boundary_f(square, block(20, 22, 20, 20)) == 1
    assert boundary_f(square, block(70, 70, 20, 20)) == 0


def test_near_is_a_disk() -> None:
    """The outline of one pixel is a block of 2 x 2. Of that of another, 2 further right and down, the four pixels are
    1.41, 2.24, 2.24 and 2.83 away from the nearest: within 2 is one of four, where a square would have them all."""
    one, moved = block(50, 50, 1, 1), block(52, 52, 1, 1)
    assert mask_boundary(one).sum() == 4
    assert boundary_f(one, moved) == pytest.approx(1 / 4)
    assert boundary_f(one, block(51, 51, 1, 1)) == 1  # 0, 1, 1 and 1.41


def test_masks_without_outline() -> None:
    nothing, all_of_it = np.zeros((9, 9), np.uint8), np.ones((9, 9), np.uint8)
    assert boundary_f(nothing, all_of_it) == boundary_f(nothing, nothing) == 1  # neither has an outline
    assert boundary_f(nothing, block(3, 3, 2, 2, (9, 9))) == boundary_f(block(3, 3, 2, 2, (9, 9)), nothing) == 0


def test_a_whole_object() -> None:
    """Two frames: J 1 and (20 * 17) / (20 * 23), F 1 and 44/80."""
    square = block(20, 20, 20, 20)
    scores = score_masks([square, square], [square, block(20, 23, 20, 20)])
    assert (scores.j, scores.f) == pytest.approx(((1 + 17 / 23) / 2, (1 + 0.55) / 2))
    assert scores.jf == pytest.approx((20 / 23 + 0.775) / 2)


def test_masks_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="no frame"):
        score_masks([], [])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        score_masks([block(0, 0, 1, 1)], [])
    for measure in (region_j, boundary_f):
        with pytest.raises(ValueError, match="not of one image"):
            measure(block(0, 0, 1, 1, (4, 4)), block(0, 0, 1, 1, (4, 5)))


# Sentences ------------------------------------------------------------------------------------------------------------


def samples() -> list[ReferringSample]:
    """Frame 0: the truth (5 x 10) itself, score 0.9, and 9 pixels apart from it, 0.95. Frame 1: 31 of the 50."""
    truth = rle(block(0, 0, 5, 10))
    part = block(0, 0, 3, 10) | block(3, 0, 1, 1)
    first = ReferringSample(truth, (rle(block(0, 0, 5, 10)), rle(block(50, 50, 3, 3))), (0.9, 0.95))
    return [first, ReferringSample(truth, (rle(part),), (0.5,))]


def test_average_precision_by_hand() -> None:
    """By score: the block (wrong), the truth (right), the part (right up to an overlap of 0.62).

    Up to 0.6 (three of ten thresholds): precision 1/2 and 2/3 at recall 1/2 and 1, so 2/3 is the best from any recall
    on. From 0.65 on (seven): 1/2 up to recall 1/2, which is 51 of the 101 recalls, and 0 beyond.
    """
    scores = referring_metrics(samples())
    strict = 51 / 101 * 1 / 2
    assert scores["mAP 0.5:0.95"] == pytest.approx((3 * 2 / 3 + 7 * strict) / 10, abs=1e-9)
    assert scores["AP 0.5"] == pytest.approx(2 / 3, abs=1e-9)
    assert scores["AP 0.75"] == pytest.approx(strict, abs=1e-9)
    assert scores["AP 0.5:0.95 S"] == pytest.approx(scores["mAP 0.5:0.95"], abs=1e-9)  # 50 pixels: below 32 * 32
    assert scores["AP 0.5:0.95 M"] == scores["AP 0.5:0.95 L"] == -1  # there is none


def test_best_masks_by_hand() -> None:
    """The best of frame 0 is the block: 0 of 59. That of frame 1: 31 of 50."""
    scores = referring_metrics(samples())
    assert [scores[f"P@{at}"] for at in (0.5, 0.6, 0.7, 0.8, 0.9)] == [0.5, 0.5, 0, 0, 0]
    assert scores["overall_iou"] == pytest.approx(31 / (59 + 50), abs=1e-12)
    expected = (1e-6 / 59.000001 + 31.000001 / 50.000001) / 2
    assert scores["mean_iou"] == pytest.approx(expected, abs=1e-15)
    assert list(scores)[6:] == ["P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9", "overall_iou", "mean_iou"]


def test_exactly_half_is_lifted_above_half() -> None:
    """25 of 50: (25 + 1e-6) / (50 + 1e-6) is more than 0.5, as published."""
    half = ReferringSample(rle(block(0, 0, 5, 10)), (rle(block(0, 0, 5, 5)),), (0.1,))
    scores = referring_metrics([half])
    assert (scores["P@0.5"], scores["P@0.6"]) == (1, 0)


def test_a_frame_without_masks_is_missed() -> None:
    scores = referring_metrics([ReferringSample(rle(block(0, 0, 5, 10)), (), ())])
    assert scores["overall_iou"] == scores["P@0.5"] == scores["AP 0.5"] == 0
    assert scores["mean_iou"] == pytest.approx(1e-6 / 50.000001)


def test_pycocotools_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    referring_metrics(samples())
    assert capsys.readouterr().out == ""


def test_inconsistent_samples_are_refused() -> None:
    truth = rle(block(0, 0, 1, 1))
    with pytest.raises(ValueError, match="no sample"):
        referring_metrics([])
    for masks, scores in (((truth,), ()), ((truth,), (float("nan"),))):
        with pytest.raises(ValueError, match="scores"):
            ReferringSample(truth, masks, scores)
    with pytest.raises(ValueError, match="one size"):
        ReferringSample(truth, (rle(block(0, 0, 1, 1, (4, 4))),), (0.5,))
