"""Runs of a video over HTTP: which is current, what it found, and what changed from one to the other."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Engine

from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.videos import videos
from shared.values import Result
from tests.support import factories
from tests.support.batches import (
    HSV_LUV_ANALYSES,
    CreateBatch,
    add_shots_run,
    add_videos,
    dispatch_batch,
    finish_runs,
    read_fault,
)

BAD = (400, "invalid_request")
OLD = ((0, 20), (20, 50), (50, 60), (60, 70), (70, 140), (140, 240))
NEW = ((0, 20), (20, 54), (54, 70), (70, 100), (100, 140), (140, 240))
"""Against the old: kept, moved by four, merged, split, kept."""


def get(client: FlaskClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_a_later_run_supersedes_and_both_can_be_read(client: FlaskClient, database: Engine) -> None:
    (video,) = add_videos(database, 1)
    first = add_shots_run(database, video, *OLD)
    second = add_shots_run(database, video, *NEW, detector="hsv_luv")
    waiting = jobs.create_job(database, NewJob(video, (factories.make_analysis(threshold=0.3),)))
    items = get(client, f"/v1/videos/{video}/runs")["items"]
    assert [(one["id"], one["state"], one["current"], one["superseded_by"]) for one in items] == [
        (waiting.job.runs[0].id, "queued", False, None), (second, "done", True, None), (first, "done", False, second),
    ]  # fmt: skip
    shown = get(client, f"/v1/videos/{video}/results?model=shots")
    assert {item["run_id"] for item in shown["items"]} == {second}
    assert (len(shown["items"]), shown["provenance"][0]["run_id"]) == (6, second)
    old = get(client, items[2]["urls"]["results"])
    assert [item["end"]["frame"] for item in old["items"]] == [end for _, end in OLD]
    finish_runs(database, waiting.wakeups)  # finds nothing, and that is the current result
    empty = get(client, f"/v1/videos/{video}/results")
    assert (empty["items"], [one["run_id"] for one in empty["provenance"]]) == ([], [waiting.job.runs[0].id])
    assert [one["superseded_by"] for one in get(client, f"/v1/videos/{video}/runs")["items"]] == [
        None, waiting.job.runs[0].id, second,
    ]  # fmt: skip


def test_pages_of_results_stay_with_their_runs(client: FlaskClient, database: Engine) -> None:
    (video,) = add_videos(database, 1)
    first = add_shots_run(database, video, *OLD)
    place, listed = f"/v1/videos/{video}/results?limit=4&kind=shot", []
    while place:
        answer = client.get(place)
        listed += [(item["run_id"], item["seq"]) for item in answer.json["items"]]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
        if place:
            add_shots_run(database, video, *NEW, detector="hsv_luv")
    assert listed == [(first, seq) for seq in range(6)]
    runs = get(client, f"/v1/videos/{video}/runs?limit=1&model=shots")
    rest = get(client, f"/v1/videos/{video}/runs?limit=1&page_token={runs['next_page_token']}")
    assert (rest["items"][0]["id"], rest["next_page_token"]) == (first, None)


def test_bad_questions(client: FlaskClient, database: Engine) -> None:
    video, other = add_videos(database, 2)
    run = add_shots_run(database, video, *OLD)
    failed = jobs.create_job(database, NewJob(video, (factories.make_analysis(threshold=0.3),)))
    finish_runs(database, failed.wakeups, failed=True)
    for path, expected in (
        (f"{video}/results?model=no", (*BAD, "/query/model", "unknown_model")),
        (f"{video}/results?run=run_none", (*BAD, "/query/run", "unknown_run")),
        (f"{video}/results?run={failed.job.runs[0].id}", (*BAD, "/query/run", "unknown_run")),
        (f"{other}/results?run={run}", (*BAD, "/query/run", "unknown_run")),
        (f"{video}/results?run={run}&model=bassl", (*BAD, "/query/run", "unknown_run")),
        (f"{video}/results?page_token=x", (*BAD, "/query/page_token", "bad_token")),
        (f"{video}/runs?model=no", (*BAD, "/query/model", "unknown_model")),
        (f"{video}/runs?page_token=x", (*BAD, "/query/page_token", "bad_token")),
        ("vid_none/results", (404, "not_found", "", "")),
        ("vid_none/results?run=run_none", (404, "not_found", "", "")),
        ("vid_none/runs", (404, "not_found", "", "")),
    ):
        assert read_fault(client.get(f"/v1/videos/{path}")) == expected, path


def test_a_diff_of_two_runs(client: FlaskClient, database: Engine) -> None:
    (video,) = add_videos(database, 1)
    old, new = add_shots_run(database, video, *OLD), add_shots_run(database, video, *NEW, detector="hsv_luv")
    diff = get(client, f"/v1/runs/{new}/diff?base_run_id={old}&kind=shot")
    assert diff == get(client, f"/v1/runs/{new}/diff")  # what it has superseded, and all kinds that can be compared
    assert (diff["video_id"], diff["run"]["run_id"], diff["base_run"]["run_id"]) == (video, new, old)
    assert (diff["run"]["params"]["detector"], diff["base_run"]["params"]["detector"]) == ("hsv_luv", "transnetv2")
    (shots,) = diff["kinds"]
    assert shots["changes"] == {
        "kept": 2, "moved": 1, "merged": 1, "split": 1, "regrouped": 0, "added": 0, "gone": 0,
    }  # fmt: skip
    assert (shots["before"], shots["after"], shots["moved_frames"]) == (6, 6, {"median": 4.0, "largest": 4})
    moved, merged = shots["pairings"][1:3]
    assert (moved["change"], moved["moved_by"]) == ("moved", {"start_frames": 0, "end_frames": 4})
    assert moved["after"][0]["end"] == {"frame": 54, "seconds": 2.25225, "pts": 54054, "timecode": "00:00:02:06"}
    assert [one["seq"] for one in merged["before"]] == [2, 3]
    assert (merged["change"], merged["moved_by"]) == ("merged", None)
    backwards = get(client, f"/v1/runs/{old}/diff?base_run_id={new}")["kinds"][0]["changes"]
    assert (backwards["merged"], backwards["split"]) == (1, 1)
    assert get(client, f"/v1/runs/{new}/diff?base_run_id={new}")["kinds"][0]["changes"]["kept"] == 6


def test_what_cannot_be_compared(client: FlaskClient, database: Engine) -> None:
    video, elsewhere = add_videos(database, 2)
    run, other = add_shots_run(database, video, *OLD), add_shots_run(database, elsewhere, *NEW)
    created = jobs.create_job(database, NewJob(video, (factories.make_analysis(threshold=0.3),)))
    queued, line = created.job.runs[0].id, factories.make_timeline(240)
    for path, expected in (
        (f"{run}/diff", (409, "conflict", "", "")),
        (f"{queued}/diff?base_run_id={run}", (409, "conflict", "", "")),
        (f"{run}/diff?base_run_id={queued}", (409, "conflict", "", "")),
        (f"{run}/diff?base_run_id={other}", (*BAD, "/query/base_run_id", "other_video")),
        (f"{run}/diff?base_run_id=run_none", (404, "not_found", "", "")),
        ("run_none/diff", (404, "not_found", "", "")),
        (f"{run}/diff?base_run_id={run}&kind=scene", (*BAD, "/query/kind", "unknown_kind")),
    ):
        assert read_fault(client.get(f"/v1/runs/{path}")) == expected, path
    overlapping = [Result("shot", 0, line.time_range(0, 50)), Result("shot", 1, line.time_range(40, 90))]
    finish_runs(database, created.wakeups, overlapping)
    assert read_fault(client.get(f"/v1/runs/{queued}/diff"))[2:] == ("/query/kind", "overlapping")
    whole = jobs.create_job(database, NewJob(video, (factories.make_analysis(threshold=0.4),)))
    finish_runs(database, whole.wakeups, [Result("shot", 0)])
    assert read_fault(client.get(f"/v1/runs/{whole.job.runs[0].id}/diff?base_run_id={run}"))[2:] == (
        "/query/kind",
        "no_times",
    )


def test_what_a_batch_has_changed(client: FlaskClient, database: Engine, create_batch: CreateBatch) -> None:
    same, changed, new, gone, late = add_videos(database, 5)
    created = [add_shots_run(database, video, *OLD) for video in (changed, gone)]
    first = create_batch(analyses=HSV_LUV_ANALYSES, selection={"videos": [same]})
    finish_runs(database, dispatch_batch(database, first["id"]), factories.make_shots(*NEW))
    again = create_batch(analyses=HSV_LUV_ANALYSES, cap=4)
    wakes = dispatch_batch(database, again["id"])  # the run on the first video is there already
    finish_runs(database, wakes, factories.make_shots(*NEW))
    jobs.delete_job(
        database, jobs.list_jobs(database, limit=1, job_filter=jobs.JobFilter(video_id=gone), after=None)[0].id
    )
    diff = get(client, again["urls"]["diff"])
    assert diff["complete"] is True
    assert diff["videos"] == {"unchanged": 1, "compared": 1, "first": 1, "forgotten": 1, "unfinished": 1}
    assert diff["kinds"]["shot"]["changes"]["merged"] == 1
    assert (diff["kinds"]["shot"]["before"], diff["kinds"]["shot"]["after"]) == (6, 6)
    by_video = {item["video_id"]: item for item in diff["items"]}
    assert by_video[changed]["base_run_id"] == created[0]
    assert by_video[changed]["kinds"]["shot"]["moved_frames"] == {"median": 4.0, "largest": 4}
    assert {video: by_video[video]["outcome"] for video in by_video} == {
        same: "unchanged", changed: "compared", new: "first", gone: "forgotten", late: "unfinished",
    }  # fmt: skip
    place, listed = f"{again['urls']['diff']}?limit=2", []
    while place:
        answer = client.get(place)
        assert answer.json["kinds"] == diff["kinds"]
        listed += answer.json["items"]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert listed == diff["items"]
    assert get(client, f"{again['urls']['diff']}?limit=0")["items"] == []
    assert read_fault(client.get(f"{again['urls']['diff']}?page_token=x"))[2:] == ("/query/page_token", "bad_token")
    assert videos.get_video(database, same).name == by_video[same]["name"]
