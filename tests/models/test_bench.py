"""The measurements run, compare what they say they compare, and tell when boundaries differ."""

from __future__ import annotations

import numpy as np
import pytest

from shared.errors import InvalidRequest
from worker import bench


@pytest.mark.slow
def test_the_bench_compares_everything_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["shots", "--seconds", "3", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:34].strip(): line[34:].split() for line in lines if line.strip()}
    assert float(rows["ffmpeg -f null"][1]) == 1.0
    assert float(rows["shots hsv_luv, keyframes, sheet"][1]) > 0
    assert float(rows["package as shipped, fp32 100/50"][2]) == 1.0
    parity = " ".join(rows["torch fp32 100/50"])
    assert "0 lost, 0 more" in parity
    assert float(parity.rpartition(" ")[2]) < 1e-5


def test_boundaries_are_the_starts_of_all_shots_but_the_first() -> None:
    found = np.zeros(50, np.float32)
    found[[10, 30, 31, 32]] = 0.9
    assert bench.boundaries(found) == [11, 33]


def test_boundaries_a_frame_apart_are_the_same_and_others_are_told() -> None:
    shipped, other = np.zeros(50, np.float32), np.zeros(50, np.float32)
    shipped[[10, 30]] = other[[11, 40]] = 0.9
    assert bench.same(shipped, other).startswith("2, 1 lost, 1 more")


def test_a_film_without_the_sample_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match="--film"):
        bench.main(["shots"])
