"""The papers' metrics: a file for each kind of result. Import them from here."""

from worker.evaluation.masks import (
    ReferringSample,
    RegionBoundaryScores,
    boundary_f,
    mask_boundary,
    referring_metrics,
    region_j,
    score_masks,
)
from worker.evaluation.retrieval import recall_at
from worker.evaluation.scenes import (
    ConfusionCounts,
    PrecisionRecall,
    ScoredVideo,
    average_precision,
    bassl_metrics,
    confusion_counts,
    mean_average_precision,
    mean_iou,
    modelscope_rates,
    pooled_average_precision,
    precision_recall,
    recall_within,
    scrl_metrics,
    scrl_rates,
)
from worker.evaluation.summaries import RankCorrelation, f_scores, rank_correlation, summe_f, tvsum_f

__all__ = [
    "ConfusionCounts",
    "PrecisionRecall",
    "RankCorrelation",
    "ReferringSample",
    "RegionBoundaryScores",
    "ScoredVideo",
    "average_precision",
    "bassl_metrics",
    "boundary_f",
    "confusion_counts",
    "f_scores",
    "mask_boundary",
    "mean_average_precision",
    "mean_iou",
    "modelscope_rates",
    "pooled_average_precision",
    "precision_recall",
    "rank_correlation",
    "recall_at",
    "recall_within",
    "referring_metrics",
    "region_j",
    "score_masks",
    "scrl_metrics",
    "scrl_rates",
    "summe_f",
    "tvsum_f",
]
