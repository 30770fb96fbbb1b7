"""Metrics of retrieval by embedding similarity: the protocol of CMD (CVPR 2022; R(2+1)D-26) and earlier work.

The queries are embeddings of test videos, the gallery those of training videos; nothing is trained on them. A query is
correct at k if any of its k most similar gallery videos has its class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.floating]
Classes = npt.NDArray[np.integer]

RECALL_RANKS = (1, 5, 10, 20, 50)
"""Values of k."""

QUERIES_PER_BATCH = 1024
"""Queries compared at a time, to bound the memory of the similarity matrix."""


def recall_at(
    queries_QD: Embeddings,
    classes_Q: Classes,
    gallery_GD: Embeddings,
    classes_G: Classes,
    ranks: Sequence[int] = RECALL_RANKS,
) -> dict[int, float]:
    """Share of the queries with their class among the k most similar by cosine, for each k.

    Of equal similarities the earlier one in the gallery comes first. An embedding of zeros has similarity 0 to all.

    Raises:
        ValueError: no query or no gallery, lengths that do not agree, a value that is not finite, or a k below 1.
    """
    _check_inputs(queries_QD, classes_Q, gallery_GD, classes_G)
    if not ranks or min(ranks) < 1:
        raise ValueError(f"Every rank must be at least 1: {list(ranks)}.")
    gallery_DG = _normalize_rows(gallery_GD).T
    hits_QK = np.concatenate(
        [
            _hits_at_ranks(
                _normalize_rows(queries_QD[first : first + QUERIES_PER_BATCH]) @ gallery_DG,
                classes_Q[first : first + QUERIES_PER_BATCH],
                classes_G,
                ranks,
            )
            for first in range(0, len(queries_QD), QUERIES_PER_BATCH)
        ]
    )
    return dict(zip(ranks, hits_QK.mean(axis=0).tolist(), strict=True))


def _check_inputs(queries_QD: Embeddings, classes_Q: Classes, gallery_GD: Embeddings, classes_G: Classes) -> None:
    for vectors_ND, classes_N in ((queries_QD, classes_Q), (gallery_GD, classes_G)):
        if vectors_ND.ndim != 2 or not len(vectors_ND) or classes_N.shape != vectors_ND.shape[:1]:
            raise ValueError(f"Embeddings {vectors_ND.shape} do not go with classes {classes_N.shape}.")
        if not np.isfinite(vectors_ND).all():
            raise ValueError("An embedding has a value that is not finite.")
    if queries_QD.shape[1] != gallery_GD.shape[1]:
        raise ValueError(f"Embeddings of {queries_QD.shape[1]} and {gallery_GD.shape[1]} numbers cannot be compared.")


def _normalize_rows(vectors_ND: Embeddings) -> npt.NDArray[np.float64]:
    lengths_N1 = np.linalg.norm(vectors_ND.astype(np.float64), axis=1, keepdims=True)
    unit_ND: npt.NDArray[np.float64] = vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1)
    return unit_ND


def _hits_at_ranks(
    similarity_RG: npt.NDArray[np.float64], classes_R: Classes, classes_G: Classes, ranks: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Return (R, K): whether the class of a query is among its k most similar gallery videos."""
    order_RG = np.argsort(-similarity_RG, axis=1, kind="stable")
    same_class_RG = classes_G[order_RG] == classes_R[:, None]
    first_R = np.where(same_class_RG.any(axis=1), same_class_RG.argmax(axis=1), len(classes_G))
    hits_RK: npt.NDArray[np.bool_] = first_R[:, None] < np.minimum(np.array(ranks), len(classes_G))
    return hits_RK
