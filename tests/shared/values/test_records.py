"""JSON forms: what is stored is read back as it was, and what is shown has the stored words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time
from fractions import Fraction
from typing import Any

import pytest

from shared.errors import InvalidRequest, RateLimited, StorageFull, WeightsMissing, is_retryable
from shared.values import AudioStream, Clock, Stage, VideoFacts, Worker
from shared.values.batches import Selection, Workload
from shared.values.jobs import PRIORITIES, PRIORITY_NAMES
from shared.values.sources import Source
from shared.values.timetable import DailyHours
from shared.values.workers import ModelOffer

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def encode(value: object) -> Any:
    return json.loads(json.dumps(value))


def make_facts() -> VideoFacts:
    return VideoFacts(
        "mov", "h264", "yuv420p", 8, 720, 576, 1024, 576, 90, Fraction(64, 45),
        Clock(Fraction(1, 90_000), Fraction(30_000, 1001), 3003), Fraction(1, 4), Fraction(0), Fraction(5, 2), 75,
        transfer="bt709", interlaced=True, audio=(AudioStream("aac", 2, 48_000, "deu"),), truncated=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "stage",
    [Stage("plan"), Stage("encode", "running", 240, 600, "frame", 2.5), Stage("render", "done", 3, 3, "clip", 1)],
)
def test_a_stage_is_read_back(stage: Stage) -> None:
    assert Stage.from_dict(encode(stage.to_dict())) == stage


def test_video_facts_are_read_back() -> None:
    facts = make_facts()
    assert VideoFacts.from_dict(encode(facts.to_dict())) == facts


@pytest.mark.parametrize(
    "work",
    [
        Workload((("shots", {}),)),
        Workload(
            (("shots", {"threshold": 0.5}), ("bassl", {})),
            Selection(("src_1",), ("vid_1",), {"show": "x"}, "failed", "media_corrupt"),
            "high",
            None,
            DailyHours(time(22), time(6), "Europe/Berlin"),
            {"team": "a"},
        ),
    ],
)
def test_a_workload_is_read_back(work: Workload) -> None:
    assert Workload.from_dict(encode(work.to_dict())) == work


def test_a_worker_shows_its_models() -> None:
    good: ModelOffer = {"model": "shots", "weights": "f" * 64, "error": None}
    bad: ModelOffer = {"model": "bassl", "weights": None, "error": {"code": "weights_missing"}}
    worker = Worker("w", "ready", None, (good, bad), "cpu", "fp32", None, NOW, NOW, live=True)
    assert encode(worker.to_dict())["models"] == [good, bad]
    assert (worker.serves_model("shots"), worker.serves_model("bassl"), worker.serves_model("mttr")) == (
        True, False, False,
    )  # fmt: skip


def test_a_source_names_the_request_for_a_scan() -> None:
    source = Source("src", "s", "folder", "/v", (), None, {}, NOW, NOW, None, scanning=False, scan={}, counts={})
    record = encode(source.to_dict())
    assert record["scan_requested_at"] == record["created_at"] == "2026-03-01T12:30:00.000Z"
    assert "wanted_at" not in record


def test_priorities_are_numbers_in_order() -> None:
    assert PRIORITIES["low"] < PRIORITIES["normal"] < PRIORITIES["high"]
    assert {name: PRIORITY_NAMES[number] for name, number in PRIORITIES.items()} == {name: name for name in PRIORITIES}


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (StorageFull(), True),
        (WeightsMissing(), False),
        (RateLimited(), False),
        (InvalidRequest(), False),
        (OSError(), False),
    ],
)
def test_only_faults_that_may_pass_are_retried(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable
