"""How well a model does, in the numbers of the papers: a file for each kind of answer. Import them from here."""

from worker.training.metrics.masks import Judgement, Referred, boundary_f, boundary_of, judge, referred, region_j
from worker.training.metrics.retrieval import recall_at
from worker.training.metrics.scenes import (
    Counts,
    Judged,
    Rates,
    average_precision,
    bassl_metrics,
    counts,
    mean_average_precision,
    miou,
    modelscope_rates,
    pooled_average_precision,
    rates,
    recall_within,
    scrl_metrics,
    scrl_rates,
)
from worker.training.metrics.summaries import Correlation, correlation, f_scores, summe_f, tvsum_f

__all__ = [
    "Correlation",
    "Counts",
    "Judged",
    "Judgement",
    "Rates",
    "Referred",
    "average_precision",
    "bassl_metrics",
    "boundary_f",
    "boundary_of",
    "correlation",
    "counts",
    "f_scores",
    "judge",
    "mean_average_precision",
    "miou",
    "modelscope_rates",
    "pooled_average_precision",
    "rates",
    "recall_at",
    "recall_within",
    "referred",
    "region_j",
    "scrl_metrics",
    "scrl_rates",
    "summe_f",
    "tvsum_f",
]
