"""What a batch has changed, in numbers: each of its runs against the run that was current before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from cachetools import LRUCache

from api.http.context import get_services
from shared.store.videos import diff as videos_diff
from shared.store.videos.diff import RunPair, VideoChange
from shared.values.diff import DiffSummary

CHUNK_VIDEOS = 50
"""Videos of a batch that are read at a time."""
BUDGET_S = 10.0
"""Seconds after which an answer says how far it has come; the next request goes on from there."""
MAX_MOST_CHANGED = 20
"""Videos that are named as those that changed most."""
MAX_CACHED_PAIRS = 50_000
"""Pairs of runs whose numbers are kept. They cannot become stale, as finished runs do not change."""

_cache: LRUCache[RunPair, dict[str, DiffSummary]] = LRUCache(MAX_CACHED_PAIRS)
_cache_lock = Lock()


@dataclass(slots=True)
class BatchChanges:
    """What a batch has changed, as far as it has been compared.

    Args:
        complete: whether all of its videos are in.
        outcome_counts: analyses of videos by the outcome of the comparison.
        kinds: what changed in numbers, by kind of result.
        most_changed: (results that were not kept, change, its numbers) of the videos with the most of them.
    """

    complete: bool = False
    outcome_counts: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, DiffSummary] = field(default_factory=dict)
    most_changed: list[tuple[int, VideoChange, dict[str, DiffSummary]]] = field(default_factory=list)

    def add_changes(self, video_changes: Sequence[VideoChange], change_sums: Sequence[dict[str, DiffSummary]]) -> None:
        """Add the changes of some videos, each with its numbers by kind of result."""
        self.outcome_counts.update(change.outcome for change in video_changes)
        for change, sums_by_kind in zip(video_changes, change_sums, strict=True):
            for kind, sums in sums_by_kind.items():
                self.kinds[kind] = self.kinds.get(kind, DiffSummary()) + sums
            if changed_count := sum(sums.changes.total() - sums.changes["kept"] for sums in sums_by_kind.values()):
                self.most_changed.append((changed_count, change, sums_by_kind))
        # Cut at once, so that memory does not grow with the batch.
        self.most_changed = sorted(self.most_changed, key=lambda entry: (-entry[0], entry[1].position))
        self.most_changed = self.most_changed[:MAX_MOST_CHANGED]

    def to_record(self) -> dict[str, Any]:
        """JSON form."""
        kinds = {kind: sums.to_dict() for kind, sums in self.kinds.items()}
        return {"complete": self.complete, "videos": dict(self.outcome_counts), "kinds": kinds}


def sum_batch_changes(batch_id: str, budget_s: float = BUDGET_S) -> BatchChanges:
    """Sum what a batch has changed within the time given; the next call comes further, by the cache. NotFound."""
    batch_changes, deadline = BatchChanges(), time.monotonic() + budget_s
    for chunk in _iter_change_chunks(batch_id):
        batch_changes.add_changes(chunk, load_change_sums(chunk))
        if time.monotonic() > deadline:
            return batch_changes
    batch_changes.complete = True
    return batch_changes


def load_change_sums(video_changes: Sequence[VideoChange]) -> list[dict[str, DiffSummary]]:
    """Load the numbers of each change by kind of result; empty where there is nothing to compare with."""
    sums_by_pair, uncached = {}, []
    for change in video_changes:
        if (pair := change.run_pair) is None:
            continue
        with _cache_lock:
            sums = _cache.get(pair)
        if sums is None:
            uncached.append((pair, videos_diff.list_comparable_kinds(change.model or "")))
        else:
            sums_by_pair[pair] = sums
    if uncached:
        summaries = videos_diff.summarise_pairs(get_services().engine, uncached)
        loaded = {pair: sums for (pair, _), sums in zip(uncached, summaries, strict=True)}
        sums_by_pair |= loaded
        with _cache_lock:
            _cache.update(loaded)
    return [sums_by_pair[change.run_pair] if change.run_pair else {} for change in video_changes]


def _iter_change_chunks(batch_id: str) -> Iterator[list[VideoChange]]:
    after = -1
    while change_rows := videos_diff.list_batch_changes(
        get_services().engine, batch_id, limit=CHUNK_VIDEOS, after=after
    ):
        yield [change for video_changes in change_rows for change in video_changes]
        after = change_rows[-1][0].position
