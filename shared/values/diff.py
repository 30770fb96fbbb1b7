"""What became of stretches of a video between two runs: kept, moved, merged, split, added, gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from shared.values.time import TimeRange

ChangeKind = Literal["kept", "moved", "merged", "split", "regrouped", "added", "gone"]
CHANGE_KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
MIN_OVERLAP = 0.5
"""Two stretches are the same thing where they share at least this part of the shorter one."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Stretches of the old run and of the new one that belong together.

    Args:
        change: `kept`: one became one, frame for frame. `moved`: one became one with another start or end. `merged`:
            several became one. `split`: one became several. `regrouped`: several became several others. `added`,
            `gone`: there is nothing on the other side.
        before, after: positions in either run.
        start_shift, end_shift: frames by which start and end have moved, later being positive; of one that became one.
    """

    change: ChangeKind
    before: tuple[int, ...]
    after: tuple[int, ...]
    start_shift: int = 0
    end_shift: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        moved = {"start_frames": self.start_shift, "end_frames": self.end_shift} if self.change == "moved" else None
        return {"change": self.change, "before": list(self.before), "after": list(self.after), "moved_by": moved}


def pair_ranges(before: Sequence[TimeRange], after: Sequence[TimeRange]) -> list[Pairing]:
    """Pair the stretches of two runs, each in the order of the video; those of one run do not overlap.

    Two are joined where they share half of the shorter one or more; what hangs together by that is one pairing.
    """
    groups = _group_overlaps(len(before), len(after), _find_overlaps(before, after))
    return [_build_pairing(old, new, before, after) for old, new in groups]


def count_shifts(pairings: Iterable[Pairing]) -> Counter[int]:
    """How many stretches have moved by how many frames: the larger of what start and end have moved by, unsigned."""
    return Counter(
        max(abs(pairing.start_shift), abs(pairing.end_shift)) for pairing in pairings if pairing.change == "moved"
    )


@dataclass(frozen=True, slots=True)
class DiffSummary:
    """What changed in numbers, between two runs or over many pairs of them.

    Args:
        before, after: stretches of the old runs and of the new ones.
        changes: pairings by kind of change; every kind is there.
        moved_by: frames -> moved stretches that moved by so many.
    """

    before: int = 0
    after: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    moved_by: Counter[int] = field(default_factory=Counter)

    @staticmethod
    def from_pairings(
        before: Sequence[TimeRange], after: Sequence[TimeRange], pairings: Sequence[Pairing]
    ) -> DiffSummary:
        """Of one pair of runs."""
        return DiffSummary(len(before), len(after), +Counter(count_changes(pairings)), count_shifts(pairings))

    def __add__(self, other: DiffSummary) -> DiffSummary:
        """Of both."""
        changes, moved_by = self.changes + other.changes, self.moved_by + other.moved_by
        return DiffSummary(self.before + other.before, self.after + other.after, changes, moved_by)

    @property
    def median_shift(self) -> float | None:
        """Frames by which half of the moved stretches have moved at most; None where none has."""
        count = self.moved_by.total()
        if not count:
            return None
        middle = [_nth_value(self.moved_by, (count - 1) // 2), _nth_value(self.moved_by, count // 2)]
        return sum(middle) / 2

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        moved = {"median": self.median_shift, "largest": max(self.moved_by)} if self.moved_by else None
        counts = {change: self.changes[change] for change in CHANGE_KINDS}
        return {"before": self.before, "after": self.after, "changes": counts, "moved_frames": moved}


def _nth_value(counts: Mapping[int, int], index: int) -> int:
    """The value at a place, from 0, of all of them in order."""
    for value in sorted(counts):
        index -= counts[value]
        if index < 0:
            return value
    raise IndexError(index)


def count_changes(pairings: Iterable[Pairing]) -> dict[str, int]:
    """How many pairings of each kind."""
    counts = Counter(pairing.change for pairing in pairings)
    return {change: counts[change] for change in CHANGE_KINDS}


def _find_overlaps(before: Sequence[TimeRange], after: Sequence[TimeRange]) -> list[tuple[int, int]]:
    """Pairs (old, new) that share enough, by one walk over both."""
    overlaps, first = [], 0
    for old, span in enumerate(before):
        while first < len(after) and after[first].end.frame <= span.start.frame:
            first += 1
        new = first
        while new < len(after) and after[new].start.frame < span.end.frame:
            overlap = min(span.end.frame, after[new].end.frame) - max(span.start.frame, after[new].start.frame)
            if overlap >= MIN_OVERLAP * min(span.frames, after[new].frames):
                overlaps.append((old, new))
            new += 1
    return overlaps


def _group_overlaps(
    old_count: int, new_count: int, overlaps: Sequence[tuple[int, int]]
) -> list[tuple[list[int], list[int]]]:
    """What hangs together, in the order of the video. Both sides are in order, so a group is a run of neighbours."""
    unmatched_old, unmatched_new = set(range(old_count)), set(range(new_count))
    groups: list[tuple[list[int], list[int]]] = []
    for old, new in overlaps:
        if groups and (old in groups[-1][0] or new in groups[-1][1]):
            groups[-1][0].append(old)
            groups[-1][1].append(new)
        else:
            groups.append(([old], [new]))
        unmatched_old.discard(old)
        unmatched_new.discard(new)
    groups = [(sorted(set(old)), sorted(set(new))) for old, new in groups]
    return groups + [([old], []) for old in sorted(unmatched_old)] + [([], [new]) for new in sorted(unmatched_new)]


def _build_pairing(old: list[int], new: list[int], before: Sequence[TimeRange], after: Sequence[TimeRange]) -> Pairing:
    pair = tuple(old), tuple(new)
    match len(old), len(new):
        case 1, 0:
            return Pairing("gone", *pair)
        case 0, 1:
            return Pairing("added", *pair)
        case 1, 1:
            start_shift = after[new[0]].start.frame - before[old[0]].start.frame
            end_shift = after[new[0]].end.frame - before[old[0]].end.frame
            return Pairing("moved" if start_shift or end_shift else "kept", *pair, start_shift, end_shift)
        case 1, _:
            return Pairing("split", *pair)
        case _, 1:
            return Pairing("merged", *pair)
        case _:
            return Pairing("regrouped", *pair)
