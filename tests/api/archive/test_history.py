"""Runs of a video over HTTP: which is current, what it found, and what changed from one to the other."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Engine

from shared.store import jobs, videos
from shared.store.jobs import NewJob
from shared.values import Result
from tests import factories
from tests.api.archive.conftest import COLOURS, Post, end, fault, feed, films, shots_of

BAD = (400, "invalid_request")
OLD = ((0, 20), (20, 50), (50, 60), (60, 70), (70, 140), (140, 240))
NEW = ((0, 20), (20, 54), (54, 70), (70, 100), (100, 140), (140, 240))
"""Against the old: kept, moved by four, merged, split, kept."""


def get(client: FlaskClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_a_later_run_supersedes_and_both_can_be_read(client: FlaskClient, database: Engine) -> None:
    (video,) = films(database, 1)
    first = shots_of(database, video, *OLD)
    second = shots_of(database, video, *NEW, detector="hsv_luv")
    waiting = jobs.create(database, NewJob(video, (factories.analysis(threshold=0.3),)))
    items = get(client, f"/v1/videos/{video}/runs")["items"]
    assert [(one["id"], one["state"], one["current"], one["superseded_by"]) for one in items] == [
        (waiting.job.runs[0].id, "queued", False, None), (second, "done", True, None), (first, "done", False, second),
    ]  # fmt: skip
    shown = get(client, f"/v1/videos/{video}/results?model=shots")
    assert {item["run_id"] for item in shown["items"]} == {second}
    assert (len(shown["items"]), shown["provenance"][0]["run_id"]) == (6, second)
    old = get(client, items[2]["urls"]["results"])
    assert [item["end"]["frame"] for item in old["items"]] == [end for _, end in OLD]
    end(database, waiting.wakes)  # finds nothing, and that is the current result
    empty = get(client, f"/v1/videos/{video}/results")
    assert (empty["items"], [one["run_id"] for one in empty["provenance"]]) == ([], [waiting.job.runs[0].id])
    assert [one["superseded_by"] for one in get(client, f"/v1/videos/{video}/runs")["items"]] == [
        None, waiting.job.runs[0].id, second,
    ]  # fmt: skip


def test_pages_of_results_stay_with_their_runs(client: FlaskClient, database: Engine) -> None:
    (video,) = films(database, 1)
    first = shots_of(database, video, *OLD)
    place, seen = f"/v1/videos/{video}/results?limit=4&kind=shot", []
    while place:
        answer = client.get(place)
        seen += [(item["run_id"], item["seq"]) for item in answer.json["items"]]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
        if place:
            shots_of(database, video, *NEW, detector="hsv_luv")
    assert seen == [(first, seq) for seq in range(6)]
    runs = get(client, f"/v1/videos/{video}/runs?limit=1&model=shots")
    rest = get(client, f"/v1/videos/{video}/runs?limit=1&page_token={runs['next_page_token']}")
    assert (rest["items"][0]["id"], rest["next_page_token"]) == (first, None)


def test_bad_questions(client: FlaskClient, database: Engine) -> None:
    video, other = films(database, 2)
    run = shots_of(database, video, *OLD)
    failed = jobs.create(database, NewJob(video, (factories.analysis(threshold=0.3),)))
    end(database, failed.wakes, failed=True)
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
        assert fault(client.get(f"/v1/videos/{path}")) == expected, path


def test_a_diff_of_two_runs(client: FlaskClient, database: Engine) -> None:
    (video,) = films(database, 1)
    old, new = shots_of(database, video, *OLD), shots_of(database, video, *NEW, detector="hsv_luv")
    diff = get(client, f"/v1/runs/{new}/diff?against={old}&kind=shot")
    assert diff == get(client, f"/v1/runs/{new}/diff")  # what it has superseded, and all kinds that can be compared
    assert (diff["video_id"], diff["run"]["run_id"], diff["against"]["run_id"]) == (video, new, old)
    assert (diff["run"]["params"]["detector"], diff["against"]["params"]["detector"]) == ("hsv_luv", "transnetv2")
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
    backwards = get(client, f"/v1/runs/{old}/diff?against={new}")["kinds"][0]["changes"]
    assert (backwards["merged"], backwards["split"]) == (1, 1)
    assert get(client, f"/v1/runs/{new}/diff?against={new}")["kinds"][0]["changes"]["kept"] == 6


def test_what_cannot_be_compared(client: FlaskClient, database: Engine) -> None:
    video, elsewhere = films(database, 2)
    run, other = shots_of(database, video, *OLD), shots_of(database, elsewhere, *NEW)
    made = jobs.create(database, NewJob(video, (factories.analysis(threshold=0.3),)))
    queued, line = made.job.runs[0].id, factories.timeline(240)
    for path, expected in (
        (f"{run}/diff", (409, "conflict", "", "")),
        (f"{queued}/diff?against={run}", (409, "conflict", "", "")),
        (f"{run}/diff?against={queued}", (409, "conflict", "", "")),
        (f"{run}/diff?against={other}", (*BAD, "/query/against", "other_video")),
        (f"{run}/diff?against=run_none", (404, "not_found", "", "")),
        ("run_none/diff", (404, "not_found", "", "")),
        (f"{run}/diff?against={run}&kind=scene", (*BAD, "/query/kind", "unknown_kind")),
    ):
        assert fault(client.get(f"/v1/runs/{path}")) == expected, path
    overlapping = [Result("shot", 0, line.range(0, 50)), Result("shot", 1, line.range(40, 90))]
    end(database, made.wakes, overlapping)
    assert fault(client.get(f"/v1/runs/{queued}/diff"))[2:] == ("/query/kind", "overlapping")
    whole = jobs.create(database, NewJob(video, (factories.analysis(threshold=0.4),)))
    end(database, whole.wakes, [Result("shot", 0)])
    assert fault(client.get(f"/v1/runs/{whole.job.runs[0].id}/diff?against={run}"))[2:] == ("/query/kind", "no_times")


def test_what_a_batch_has_changed(client: FlaskClient, database: Engine, batch: Post) -> None:
    same, changed, new, gone, late = films(database, 5)
    made = [shots_of(database, video, *OLD) for video in (changed, gone)]
    first = batch(analyses=COLOURS, selection={"videos": [same]})
    end(database, feed(database, first["id"]), factories.shots(*NEW))
    again = batch(analyses=COLOURS, cap=4)
    wakes = feed(database, again["id"])  # the run on the first film is there already
    end(database, wakes, factories.shots(*NEW))
    jobs.delete(database, jobs.page(database, limit=1, wanted=jobs.Filter(video_id=gone), after=None)[0].id)
    diff = get(client, again["urls"]["diff"])
    assert diff["complete"] is True
    assert diff["films"] == {"unchanged": 1, "compared": 1, "first": 1, "forgotten": 1, "unfinished": 1}
    assert diff["kinds"]["shot"]["changes"]["merged"] == 1
    assert (diff["kinds"]["shot"]["before"], diff["kinds"]["shot"]["after"]) == (6, 6)
    by_film = {item["video_id"]: item for item in diff["items"]}
    assert by_film[changed]["against"] == made[0]
    assert by_film[changed]["kinds"]["shot"]["moved_frames"] == {"median": 4.0, "largest": 4}
    assert {video: by_film[video]["fate"] for video in by_film} == {
        same: "unchanged", changed: "compared", new: "first", gone: "forgotten", late: "unfinished",
    }  # fmt: skip
    place, seen = f"{again['urls']['diff']}?limit=2", []
    while place:
        answer = client.get(place)
        assert answer.json["kinds"] == diff["kinds"]
        seen += answer.json["items"]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert seen == diff["items"]
    assert get(client, f"{again['urls']['diff']}?limit=0")["items"] == []
    assert fault(client.get(f"{again['urls']['diff']}?page_token=x"))[2:] == ("/query/page_token", "bad_token")
    assert videos.get(database, same).name == by_film[same]["name"]
