"""What became of stretches of a film between two runs: kept, moved, merged, split, added, gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.values.time import TimeRange

Change = Literal["kept", "moved", "merged", "split", "regrouped", "added", "gone"]
CHANGES: tuple[Change, ...] = ("kept", "moved", "merged", "split", "regrouped", "added", "gone")
LEAST = 0.5
"""Two stretches are the same thing where they share at least this part of the shorter one."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Stretches of the old run and of the new one that belong together.

    Args:
        change: `kept`: one became one, frame for frame. `moved`: one became one with another start or end. `merged`:
            several became one. `split`: one became several. `regrouped`: several became several others. `added`,
            `gone`: there is nothing on the other side.
        before, after: positions in either run.
        start_by, end_by: frames by which start and end have moved, later being positive; of one that became one.
    """

    change: Change
    before: tuple[int, ...]
    after: tuple[int, ...]
    start_by: int = 0
    end_by: int = 0

    def record(self) -> dict[str, Any]:
        """JSON form."""
        moved = {"start_frames": self.start_by, "end_frames": self.end_by} if self.change == "moved" else None
        return {"change": self.change, "before": list(self.before), "after": list(self.after), "moved_by": moved}


def compare(before: Sequence[TimeRange], after: Sequence[TimeRange]) -> list[Pairing]:
    """Pair the stretches of two runs, each in the order of the film; those of one run do not overlap.

    Two are joined where they share half of the shorter one or more; what hangs together by that is one pairing.
    """
    groups = _groups(len(before), len(after), _joined(before, after))
    return [_pairing(old, new, before, after) for old, new in groups]


def shifts(pairings: Iterable[Pairing]) -> Counter[int]:
    """How many stretches have moved by how many frames: the larger of what start and end have moved by, unsigned."""
    return Counter(max(abs(one.start_by), abs(one.end_by)) for one in pairings if one.change == "moved")


@dataclass(frozen=True, slots=True)
class Sums:
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
    def of(before: Sequence[TimeRange], after: Sequence[TimeRange], pairings: Sequence[Pairing]) -> Sums:
        """Of one pair of runs."""
        return Sums(len(before), len(after), +Counter(summed(pairings)), shifts(pairings))

    def __add__(self, other: Sums) -> Sums:
        """Of both."""
        changes, moved_by = self.changes + other.changes, self.moved_by + other.moved_by
        return Sums(self.before + other.before, self.after + other.after, changes, moved_by)

    @property
    def median(self) -> float | None:
        """Frames by which half of the moved stretches have moved at most; None where none has."""
        count = self.moved_by.total()
        if not count:
            return None
        middle = [_nth(self.moved_by, (count - 1) // 2), _nth(self.moved_by, count // 2)]
        return sum(middle) / 2

    def record(self) -> dict[str, Any]:
        """JSON form."""
        moved = {"median": self.median, "largest": max(self.moved_by)} if self.moved_by else None
        counts = {change: self.changes[change] for change in CHANGES}
        return {"before": self.before, "after": self.after, "changes": counts, "moved_frames": moved}


def _nth(counts: Mapping[int, int], place: int) -> int:
    """The value at a place, from 0, of all of them in order."""
    for value in sorted(counts):
        place -= counts[value]
        if place < 0:
            return value
    raise IndexError(place)


def summed(pairings: Iterable[Pairing]) -> dict[str, int]:
    """How many pairings of each kind."""
    counts = Counter(pairing.change for pairing in pairings)
    return {change: counts[change] for change in CHANGES}


def _joined(before: Sequence[TimeRange], after: Sequence[TimeRange]) -> list[tuple[int, int]]:
    """Pairs (old, new) that share enough, by one walk over both."""
    found, first = [], 0
    for old, span in enumerate(before):
        while first < len(after) and after[first].end.frame <= span.start.frame:
            first += 1
        new = first
        while new < len(after) and after[new].start.frame < span.end.frame:
            shared = min(span.end.frame, after[new].end.frame) - max(span.start.frame, after[new].start.frame)
            if shared >= LEAST * min(span.frames, after[new].frames):
                found.append((old, new))
            new += 1
    return found


def _groups(olds: int, news: int, joined: Sequence[tuple[int, int]]) -> list[tuple[list[int], list[int]]]:
    """What hangs together, in the order of the film. Both sides are in order, so a group is a run of neighbours."""
    left, right = set(range(olds)), set(range(news))
    groups: list[tuple[list[int], list[int]]] = []
    for old, new in joined:
        if groups and (old in groups[-1][0] or new in groups[-1][1]):
            groups[-1][0].append(old)
            groups[-1][1].append(new)
        else:
            groups.append(([old], [new]))
        left.discard(old)
        right.discard(new)
    groups = [(sorted(set(old)), sorted(set(new))) for old, new in groups]
    return groups + [([old], []) for old in sorted(left)] + [([], [new]) for new in sorted(right)]


def _pairing(old: list[int], new: list[int], before: Sequence[TimeRange], after: Sequence[TimeRange]) -> Pairing:
    pair = tuple(old), tuple(new)
    match len(old), len(new):
        case 1, 0:
            return Pairing("gone", *pair)
        case 0, 1:
            return Pairing("added", *pair)
        case 1, 1:
            start_by = after[new[0]].start.frame - before[old[0]].start.frame
            end_by = after[new[0]].end.frame - before[old[0]].end.frame
            return Pairing("moved" if start_by or end_by else "kept", *pair, start_by, end_by)
        case 1, _:
            return Pairing("split", *pair)
        case _, 1:
            return Pairing("merged", *pair)
        case _:
            return Pairing("regrouped", *pair)
