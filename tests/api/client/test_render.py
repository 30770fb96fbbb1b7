"""Records of the API as tables, lines and CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from api.client.render.batches import build_plan_table, describe_work, format_progress
from api.client.render.csv import write_results_csv, write_similar_csv
from api.client.render.jobs import (
    JobProgressDisplay,
    build_jobs_table,
    build_runs_table,
    format_run_errors,
    format_stage,
)
from api.client.render.models import build_models_table
from api.client.render.results import build_results_table
from api.client.render.search import build_similar_table
from api.client.render.sources import format_source
from api.client.render.tables import format_duration, format_labels, format_time


def make_time(frame: int) -> dict[str, Any]:
    return {"frame": frame, "seconds": frame / 25, "pts": frame * 512, "timecode": f"00:00:00:{frame:02d}"}


SHOT = {
    "model": "shots", "kind": "shot", "seq": 0, "start": make_time(0), "end": make_time(20), "score": 0.25,
    "data": {"name": 'a, "b" é'},
}  # fmt: skip
VIDEO_RESULT = {
    "model": "r2plus1d", "kind": "embedding", "seq": 0, "start": None, "end": None, "score": None, "data": {},
}  # fmt: skip
STAGE = {
    "name": "encode", "state": "running", "done": 30, "of": 60, "unit": "frame", "per_second": 12.5, "seconds": 2.4,
}  # fmt: skip
JOB = {
    "id": "job_1", "state": "running", "progress": {"fraction": 0.5, "eta_s": 3.0},
    "created_at": "2026-01-31T12:00:00Z", "finished_at": None,
    "runs": [
        {"model": "shots", "state": "running", "attempt": 1, "stages": [STAGE], "reused": False},
        {"model": "bassl", "state": "failed", "attempt": 3, "stages": [], "reused": True,
         "error": {"code": "out_of_memory", "detail": "No room."}},
    ],
}  # fmt: skip


def draw(renderable: RenderableType) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_results_have_exact_times_or_empty_cells() -> None:
    drawn = draw(build_results_table([SHOT, VIDEO_RESULT]))
    assert '│ 00:00:00:00 │ 00:00:00:20 │   0.000 │ 0.800 │    0.800 │ 0.250 │ name=a, "b" é' in drawn
    assert "embedding" in drawn


def test_results_as_csv() -> None:
    out = io.StringIO()
    write_results_csv([SHOT, VIDEO_RESULT], out)
    shot, video_result = csv.DictReader(io.StringIO(out.getvalue()))
    assert list(shot) == [
        "model", "kind", "seq", "start_frame", "start_seconds", "start_pts", "start_timecode", "end_frame",
        "end_seconds", "end_pts", "end_timecode", "score", "data",
    ]  # fmt: skip
    assert (shot["end_frame"], shot["end_seconds"], shot["end_pts"], shot["score"]) == ("20", "0.8", "10240", "0.25")
    assert shot["data"] == r'{"name": "a, \"b\" \u00e9"}'
    assert (video_result["start_frame"], video_result["score"]) == ("", "")


def test_neighbours_as_table_and_csv() -> None:
    video = {"id": "vid_1", "name": "a.mp4"}
    items = [
        {
            "similarity": 0.98765,
            "video": video,
            "run_id": "run_1",
            "seq": 3,
            "start": make_time(0),
            "end": make_time(9),
        },
        {"similarity": 0.5, "video": video, "run_id": "run_2", "seq": None, "start": None, "end": None},
    ]
    answer = {
        "items": items, "per": "shot", "model": "r2plus1d", "weights": {"fingerprint": "0123456789abcdef"},
        "left_out": {"other_weights": 2, "other_per": 1},
    }  # fmt: skip
    drawn = " ".join(draw(build_similar_table(answer)).split())  # the caption is as wide as the table
    assert "0.9877" in drawn
    assert "r2plus1d 0123456789ab; left out, with other weights: 2; left out, embedded as a whole only: 1" in drawn
    out = io.StringIO()
    write_similar_csv(items, out)
    shot, whole = csv.DictReader(io.StringIO(out.getvalue()))
    assert (shot["similarity"], shot["seq"], shot["end_frame"]) == ("0.98765", "3", "9")
    assert (whole["name"], whole["seq"], whole["start_frame"]) == ("a.mp4", "", "")


@pytest.mark.parametrize(
    ("change", "eta", "expected"),
    [
        ({}, 6.4, "30/60 frames  12.5/s  6 s to go"),
        ({"of": None, "per_second": None}, None, "30/? frames"),
        ({"state": "done", "done": 60}, None, "60/60 frames  12.5/s  in 2.4 s"),
    ],
)
def test_a_stage_in_words(change: dict[str, Any], eta: float | None, expected: str) -> None:
    assert format_stage(STAGE | change, eta) == expected


def test_jobs_with_their_runs_and_errors() -> None:
    listed, shown = draw(build_jobs_table([JOB])), draw(build_runs_table(JOB))
    assert [word in listed for word in ("job_1", "50%", "shots, bassl", "2026-01-31 12:00:00")] == [True] * 4
    assert [word in shown for word in ("encode running", "30/60 frames", "failed (reused)")] == [True] * 3
    assert format_run_errors(JOB) == ["bassl: out_of_memory: No room."]


def test_progress_of_a_job_without_a_terminal_is_a_line_now_and_then() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    finished = JOB | {"runs": [JOB["runs"][0] | {"stages": [STAGE | {"state": "done", "done": 60}]}]}
    with JobProgressDisplay(console) as display:
        for job in (JOB | {"state": "queued", "runs": []}, JOB, JOB, finished, finished):
            display.show_job(job)
    assert console.export_text().splitlines() == [
        "queued", "shots encode: 30/60 frames  12.5/s  3 s to go", "shots encode: 60/60 frames  12.5/s  in 2.4 s",
    ]  # fmt: skip


def test_names_in_brackets_are_not_markup() -> None:
    source = {"name": "films [HD]", "scanning": True, "counts": {"present": 2}}
    assert draw(format_source(source)) == "films [HD]  being scanned  present 2\n"


def test_progress_of_a_batch() -> None:
    batch = {"progress": {"fraction": 0.41, "eta_s": 95}, "videos": 200, "counts": {"succeeded": 80, "waiting": 118}}
    assert format_progress(batch) == "41% of 200 videos  succeeded 80  waiting 118  95 s to go"


def test_work_of_a_batch() -> None:
    record = {
        "analyses": [{"model": "shots", "params": {"threshold": 0.4, "detector": None}}], "hours": None, "cap": None,
        "selection": {"only": "missing", "labels": {"show": "x"}, "videos": ["vid_1", "vid_2"], "sources": []},
        "priority": "low", "labels": {},
    }  # fmt: skip
    assert describe_work(record) == [
        ("models", "shots threshold=0.4"), ("videos", "only missing; labels show:x; videos vid_1, vid_2"),
        ("priority", "low"), ("at once", "no limit"), ("hours", "always"), ("labels", ""),
    ]  # fmt: skip


def test_plan_of_reprocessing() -> None:
    measured = {
        "model": "shots", "runs": 2, "video_s": 7200, "device": "cpu", "precision": "fp32", "measured_runs": 9,
        "seconds": {"usual": 720, "low": 600, "high": 900},
    }  # fmt: skip
    unknown = measured | {"model": "bassl", "device": None, "precision": None, "seconds": None}
    part = {"videos": 2, "hours": 2.0}
    drawn = draw(
        build_plan_table({"selected": part, "to_do": part, "skipped": {"done": 1}, "estimates": [measured, unknown]})
    )
    assert "12 min (10 min to 15 min, by 9 runs)" in drawn
    assert "unknown: no finished run to measure" in drawn
    assert [word in drawn for word in ("left out, done already", "hours of video", "cpu fp32", "2.00")] == [True] * 4


def test_the_catalog_has_a_row_for_each_parameter() -> None:
    params = {"properties": {"threshold": {"default": 0.5, "description": "Higher finds fewer."}}}
    drawn = draw(build_models_table([{"name": "shots", "summary": "Finds shots.", "params": params}]))
    assert [word in drawn for word in ("Finds shots.", "threshold", "0.5", "Higher finds fewer.")] == [True] * 4


def test_cells() -> None:
    assert (format_time("2026-01-31T12:00:00.5Z"), format_time(None)) == ("2026-01-31 12:00:00 UTC", "")
    assert format_labels({"show": "x", "year": "2026"}) == "show:x, year:2026"
    assert [format_duration(seconds) for seconds in (0.4, 99, 100, 5940, 6000, 86_400)] == [
        "0 s", "99 s", "2 min", "99 min", "1 h 40 min", "24 h 0 min",
    ]  # fmt: skip
