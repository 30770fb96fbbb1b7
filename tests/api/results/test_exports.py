"""Results in the forms of other programs, read back: by OpenTimelineIO, by csv and json, by hand-worked timecodes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from array import array
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree as Xml

import opentimelineio as otio
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api.results.formats.edits import Edit, render_edl, render_otio
from api.results.formats.fcpxml import render_fcpxml
from api.results.formats.text import render_ffmetadata, render_web_vtt
from shared.store.results import RunResult
from shared.values import Clock, Job, Result, StoredVideo, Timeline
from tests.api.conftest import add_named_video, finish_run, finish_scenes, finish_shots
from tests.support import factories

NTSC = Fraction(30_000, 1001)


def edit(line: Timeline, *bounds: tuple[int, int], name: str = "my film.mp4", joined: bool = True) -> Edit:
    """Highlights there."""
    facts = factories.make_video(
        clock=line.clock, frames=len(line), duration=line.moment_at(len(line)).seconds
    )  # fmt: skip
    video = StoredVideo("vid_1", "a" * 64, 1, name, "video/mp4", facts, datetime.now(UTC))
    rows = [Result("highlight", seq, line.time_range(*bound), 0.25 * (seq + 1)) for seq, bound in enumerate(bounds)]
    return Edit(video, [RunResult("run_1", "clip_it", 0, row) for row in rows], joined, {"model": "clip_it"})


def evenly(fps: Fraction, frames: int) -> Timeline:
    return factories.make_timeline(frames, factories.make_clock(fps, 1 / (fps * 1000)))


def export(client: FlaskClient, job: Job, query: str) -> TestResponse:
    answer = client.get(f"/v1/jobs/{job.id}/results?format={query}")
    assert answer.status_code == 200, answer.text
    return answer


def events(text: str) -> list[list[str]]:
    """The four times of each event of an edit list."""
    return [line.split()[4:] for line in text.splitlines() if line[:3].isdigit()]


def test_an_edit_list_by_hand() -> None:
    """30000/1001 frames a second: labels 00 and 01 are left out at the start of each minute but every tenth.

    Frame 1798 is 59;28, frame 1800 is 1:00;02 and frame 17982 is 10:00;00; the record runs back to back: 4, then 10
    frames.
    """
    text = render_edl(edit(evenly(NTSC, 18_000), (1798, 1802), (17_976, 17_986)))
    assert events(text) == [
        ["00:00:59;28", "00:01:00;04", "00:00:00;00", "00:00:00;04"],
        ["00:09:59;24", "00:10:00;04", "00:00:00;04", "00:00:00;14"],
    ]
    assert text.startswith("TITLE: my film.mp4\nFCM: DROP FRAME\n\n001  AX")
    assert "* FROM CLIP NAME:  my film.mp4\n* HIGHLIGHT 1, SCORE 0.250\n" in text


def test_the_record_runs_over_a_minute() -> None:
    """1,790 frames and 20 more end at record frame 1810, whose label is 1:00;12; source frame 3000 is 1:40;02."""
    text = render_edl(edit(evenly(NTSC, 6000), (0, 1790), (3000, 3020)))
    assert events(text)[1] == ["00:01:40;02", "00:01:40;22", "00:00:59;20", "00:01:00;12"]


@pytest.mark.parametrize(
    ("fps", "labels"),
    [
        (Fraction(24_000, 1001), ["00:00:04:04", "00:00:08:08"]),  # 100, 200 of 24 labels a second
        (Fraction(24), ["00:00:04:04", "00:00:08:08"]),
        (Fraction(25), ["00:00:04:00", "00:00:08:00"]),
        (Fraction(50), ["00:00:02:00", "00:00:04:00"]),
        (Fraction(60_000, 1001), ["00:00:01;40", "00:00:03;20"]),
        (Fraction(10), ["00:00:10:00", "00:00:20:00"]),  # of an edit list of 24: no timecode counts tens
        (Fraction(120), ["00:00:00:50", "00:00:01:40"]),  # of 60
    ],
)
def test_rates(fps: Fraction, labels: list[str]) -> None:
    found = events(render_edl(edit(evenly(fps, 400), (100, 200))))
    assert found[0][:2] == labels


def read_back(text: str) -> Any:
    """The track of the timeline; a copy, since a part does not outlive its whole."""
    (track,) = otio.adapters.read_from_string(text, "otio_json").tracks
    assert track.kind == "Video"
    return track.clone()


def counts(track: Any) -> list[tuple[float, float]]:
    """First count and number of counts of each clip's source."""
    return [(clip.source_range.start_time.value, clip.source_range.duration.value) for clip in track]


def test_a_timeline_read_back() -> None:
    text = render_otio(edit(evenly(NTSC, 18_000), (1798, 1802), (17_976, 17_986), name="my film é.mp4"))
    track = read_back(text)
    assert counts(track) == [(1798, 4), (17_976, 10)]
    assert {clip.source_range.start_time.rate for clip in track} == {float(NTSC)}
    assert track[1].range_in_parent().start_time.to_frames() == 4
    film = track[0].media_reference
    assert (film.name, film.target_url) == ("my film é.mp4", "my%20film%20%C3%A9.mp4")
    assert (film.available_range.start_time.value, film.available_range.duration.value) == (0, 18_000)
    said = track[1].metadata["sceneworks"]
    assert (said["kind"], said["seq"], said["score"], said["start"]["frame"]) == ("highlight", 1, 0.5, 17_976)
    whole = otio.adapters.read_from_string(text, "otio_json")
    origin = whole.metadata["sceneworks"]
    assert (origin["fps"], origin["vfr"], origin["model"]) == ("30000/1001", False, "clip_it")


def test_both_forms_say_the_same() -> None:
    """The edit list as its adapter reads it is the timeline."""
    made = edit(evenly(NTSC, 5000), (7, 1801), (1801, 1803), (4000, 4999))
    listed = otio.adapters.read_from_string(render_edl(made), "cmx_3600", rate=float(NTSC))
    track = read_back(render_otio(made))
    assert [clip.source_range for clip in listed.tracks[0]] == [clip.source_range for clip in track]
    assert [clip.range_in_parent() for clip in listed.tracks[0]] == [clip.range_in_parent() for clip in track]


def test_uneven_frames_follow_the_clock() -> None:
    """A timeline in ticks, exact; an edit list at the nearest frame of the nominal rate."""
    clock = Clock(time_base=Fraction(1, 1000), fps=Fraction(24), start_pts=50, vfr=True)
    made = edit(Timeline(clock, array("q", [50, 91, 150, 1050, 3050]), 3150), (1, 3), (4, 5))
    track = read_back(render_otio(made))
    assert counts(track) == [(41, 959), (3000, 100)]
    assert {clip.source_range.start_time.rate for clip in track} == {1000}
    assert [clip.range_in_parent().start_time.value for clip in track] == [0, 959]
    assert events(render_edl(made)) == [
        ["00:00:00:01", "00:00:01:00", "00:00:00:00", "00:00:00:23"],
        ["00:00:03:00", "00:00:03:02", "00:00:00:23", "00:00:01:01"],
    ]


def test_a_project_of_final_cut() -> None:
    """Whole frames as rational seconds: 1798 frames of 1001/30000 s are 899899/15000 s."""
    text = render_fcpxml(edit(evenly(NTSC, 18_000), (1798, 1802), (17_976, 17_986), name="a <film> é.mp4"))
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n<fcpxml version="1.9">')
    document = Xml.fromstring(text)
    form, asset = document.find("resources/format"), document.find("resources/asset")
    assert form is not None
    assert asset is not None
    assert form.attrib == {"id": "r1", "frameDuration": "1001/30000s", "width": "1280", "height": "720"}
    assert asset.attrib == {
        "id": "r2", "name": "a <film> é.mp4", "start": "0s", "duration": "3003/5s", "format": "r1", "hasVideo": "1",
        "hasAudio": "1", "audioSources": "1",
    }  # fmt: skip
    assert [one.attrib["src"] for one in asset] == ["./a%20%3Cfilm%3E%20%C3%A9.mp4"]
    (sequence,) = document.findall("library/event/project/sequence")
    assert (sequence.attrib["tcFormat"], sequence.attrib["duration"]) == ("DF", "7007/15000s")  # 14 frames
    assert [one.attrib for one in sequence.findall("spine/asset-clip")] == [
        {"ref": "r2", "name": "Highlight 1", "offset": "0s", "start": "899899/15000s", "duration": "1001/7500s"},
        {"ref": "r2", "name": "Highlight 2", "offset": "1001/7500s", "start": "749749/1250s", "duration": "1001/3000s"},
    ]


def test_gaps_of_final_cut() -> None:
    (spine,) = Xml.fromstring(render_fcpxml(edit(evenly(Fraction(25), 100), (5, 10), (20, 45), joined=False))).iter(
        "spine"
    )
    assert [(one.tag, one.attrib["offset"], one.attrib["duration"]) for one in spine] == [
        ("gap", "0s", "1/5s"), ("asset-clip", "1/5s", "1/5s"), ("gap", "2/5s", "2/5s"), ("asset-clip", "4/5s", "1s"),
    ]  # fmt: skip


def test_nothing_found_is_an_empty_edit() -> None:
    made = edit(evenly(Fraction(25), 10))
    assert render_edl(made) == "TITLE: my film.mp4\nFCM: NON-DROP FRAME\n"
    assert list(read_back(render_otio(made))) == []
    assert render_web_vtt(made.rows) == "WEBVTT\n"
    assert list(Xml.fromstring(render_fcpxml(made)).iter("asset-clip")) == []


def test_chapters_name_the_video_safely() -> None:
    assert "title=a\\=b\\;c\\#d\\\\.mp4\n" in render_ffmetadata([], "a=b;c#d\\.mp4")


def test_the_library_is_loaded_when_it_is_requested() -> None:
    """The API's start stays small."""
    code = "import sys, api.app; print('opentimelineio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.fixture
def told(database: Engine) -> Job:
    """Five shots, the second and third parted by a gradual change of two frames, in two scenes."""
    job = factories.create_job(database, analyses=(factories.make_analysis("bassl"),))
    shots = [
        factories.make_timeline(240).time_range(*bound)
        for bound in ((0, 24), (24, 48), (50, 72), (72, 120), (120, 240))
    ]
    finish_shots(database, job, shots)
    finish_scenes(database, job, "bassl", shots, (0.1, 0.9, 0.8, 0.55, 0.95))
    return job


def test_each_form_over_http(client: FlaskClient, told: Job) -> None:
    """Shots and scenes stay where they are, not back to back: what lies between two of them is left open."""
    answer = export(client, told, "otio&kind=shot")
    assert answer.mimetype == "application/vnd.pixar.opentimelineio+json"
    track = read_back(answer.text)
    assert [type(item).__name__ for item in track] == ["Clip", "Clip", "Gap", "Clip", "Clip", "Clip"]
    assert [item.range_in_parent().start_time.value for item in track] == [0, 24, 48, 50, 72, 120]
    answer = export(client, told, "edl&kind=shot")
    assert (answer.mimetype, answer.headers["Content-Disposition"]) == (
        "text/plain", 'attachment; filename="film shots.edl"',
    )  # fmt: skip
    assert all(event[:2] == event[2:] for event in events(answer.text))
    assert events(answer.text)[2][0] == "00:00:02:02"
    for model, found in (("bassl", 2), ("shots", 5)):  # without a kind the first that there is
        assert len(events(export(client, told, f"edl&model={model}").text)) == found
    assert export(client, told, "vtt&kind=scene").text == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.002\nScene 1\n\n2\n00:00:02.085 --> 00:00:10.010\nScene 2\n"
    )
    assert export(client, told, "srt&kind=scene").text == (
        "1\n00:00:00,000 --> 00:00:02,002\nScene 1\n\n2\n00:00:02,085 --> 00:00:10,010\nScene 2\n"
    )
    assert export(client, told, "ffmetadata&kind=scene").text == (
        ";FFMETADATA1\ntitle=film.mp4\n\n[CHAPTER]\nTIMEBASE=1/24000\nSTART=0\nEND=48048\ntitle=Scene 1\n\n"
        "[CHAPTER]\nTIMEBASE=1/24000\nSTART=50050\nEND=240240\ntitle=Scene 2\n"
    )


def test_lists_of_everything(client: FlaskClient, told: Job) -> None:
    items = client.get(f"/v1/jobs/{told.id}/results").json["items"]
    lines = export(client, told, "jsonl")
    assert [json.loads(line) for line in lines.text.splitlines()] == items
    assert lines.headers["Content-Disposition"] == f"attachment; filename={told.id}.jsonl"
    rows = list(csv.DictReader(io.StringIO(export(client, told, "csv").text)))
    assert [(row["kind"], int(row["seq"]), row["start_timecode"]) for row in rows] == [
        (item["kind"], item["seq"], item["start"]["timecode"]) for item in items
    ]
    assert [json.loads(row["data"]) for row in rows] == [item["data"] for item in items]
    assert len(export(client, told, "csv&kind=scene").text.splitlines()) == 3
    run = told.runs[0].id
    assert {json.loads(line)["run_id"] for line in export(client, told, f"jsonl&run_id={run}").text.splitlines()} == {
        run
    }


def test_a_run_of_several(client: FlaskClient, database: Engine) -> None:
    """Two questions about one video: each has its own edit."""
    asked = tuple(factories.make_analysis("clip_it", sentences=[text]) for text in ("a rabbit", "a bird"))
    job = factories.create_job(database, add_named_video(database, "der Hase läuft.mp4"), analyses=asked)
    line = factories.make_timeline(240)
    for at, bound in enumerate(((0, 24), (48, 72))):
        finish_run(database, job, "clip_it", [Result("highlight", 0, line.time_range(*bound), 1.0)], index=at)
    starts = [events(export(client, job, f"edl&run_id={run.id}").text)[0][0] for run in job.runs]
    assert starts == ["00:00:00:00", "00:00:02:00"]
    assert len(client.get(f"/v1/jobs/{job.id}/results?run_id={job.runs[1].id}").json["items"]) == 1
    answer = export(client, job, "otio")
    said = "attachment; filename*=UTF-8''der%20Hase%20l%C3%A4uft%20highlights.otio"
    assert answer.headers["Content-Disposition"] == said
    place, seen = f"/v1/jobs/{job.id}/results?format=otio", {"If-None-Match": answer.headers["ETag"]}
    assert client.get(place, headers=seen).status_code == 304


REFUSED = [
    ("format=edl", "model", "ambiguous_model"),
    ("format=edl&kind=boundary", "kind", "not_in_this_format"),
    ("format=edl&kind=highlight", "format", "nothing_yet"),
    ("format=vtt&kind=scene&model=shots", "model", "not_of_this_model"),
    ("format=otio&limit=3", "limit", "not_in_this_format"),
    ("format=csv&page_token=x", "page_token", "not_in_this_format"),
    ("run_id=run_none", "run_id", "unknown_run"),
    ("format=csv&run_id=run_none", "run_id", "unknown_run"),
    ("format=edl&model=clip_it", "model", "unknown_model"),
    ("format=xml", "format", "literal_error"),
    ("run_id={scenes}&model=shots", "run_id", "unknown_run"),
    ("run_id={scenes}&format=edl&kind=shot", "run_id", "not_of_this_model"),
]


def test_refusals(client: FlaskClient, told: Job) -> None:
    scenes = next(run.id for run in told.runs if run.model == "bassl")
    for query, pointer, code in REFUSED:
        answer = client.get(f"/v1/jobs/{told.id}/results?{query.format(scenes=scenes)}")
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
        (fault,) = answer.json["errors"]
        assert (query, fault["pointer"], fault["code"]) == (query, f"/query/{pointer}", code)
