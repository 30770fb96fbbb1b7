"""Every model's results in the form of its published pipeline; what is answered is what the document says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import validate
from sqlalchemy import Engine

from api.results import modelscope
from shared.storage import ContentStorage
from shared.store.jobs import jobs
from shared.values import Job, Result
from shared.values.tracks import JSON_LINES_MEDIA_TYPE, TrackFrame
from tests.api.conftest import finish_run, store_artifact
from tests.support import factories


def form(client: FlaskClient, job: Job | str, title: str, query: str = "") -> Any:
    """The answer, checked against the schema of that title."""
    place = job if isinstance(job, str) else job.id
    answer = client.get(f"/v1/jobs/{place}/results?format=modelscope{query}")
    assert answer.status_code == 200, answer.json
    operation = client.get("/openapi.json").json["paths"]["/v1/jobs/{job_id}/results"]["get"]
    _, *forms = operation["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    (schema,) = [one for one in forms if one["title"] == title]
    validate(answer.json, schema)
    return answer.json


def refusal(client: FlaskClient, job: Job | str, query: str = "") -> tuple[str, str]:
    place = job if isinstance(job, str) else job.id
    answer = client.get(f"/v1/jobs/{place}/results?format=modelscope{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    (fault,) = answer.json["errors"]
    return fault["pointer"], fault["code"]


def test_a_summary(client: FlaskClient, database: Engine) -> None:
    """24000/1001 frames a second; both ends inclusive, the time stamps those of the frames."""
    job = factories.create_job(database, analyses=(factories.make_analysis("clip_it"),))
    assert refusal(client, job) == ("/query/format", "nothing_yet")
    line = factories.make_timeline(240)
    rows = [Result("highlight", seq, line.time_range(*bound), 0.5) for seq, bound in enumerate(((0, 24), (48, 240)))]
    finish_run(database, job, "clip_it", [*rows, Result("segment", 0, line.time_range(0, 240), 0.5)])
    assert form(client, job, "ModelScopeSummary") == {
        "output": [
            {"frame": [0, 23], "timestamps": ["00:00:00.000", "00:00:00.959"]},
            {"frame": [48, 239], "timestamps": ["00:00:02.002", "00:00:09.968"]},
        ]
    }
    assert refusal(client, job, "&threshold=0.5") == ("/query/threshold", "not_of_this_model")
    assert refusal(client, job, "&kind=highlight") == ("/query/kind", "not_in_this_format")


def track_lines(path: Path, queries: int, frames: range) -> Path:
    line = factories.make_timeline(240)
    rows = [
        TrackFrame(query, frame, 0.5, 7, 2, (1, 0, 1, 2), (4, 3), f"40{query}").to_timed_dict(line.moment_at(frame))
        for frame in frames
        for query in range(queries)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tracked(database: Engine, files: ContentStorage, tmp_path: Path) -> Job:
    """Two queries over three frames, with the overlay."""
    job = factories.create_job(database, analyses=(factories.make_analysis("mttr", queries=("a rabbit", "a bird")),))
    lines = store_artifact(
        files, track_lines(tmp_path / "tracks.jsonl", 2, range(24, 27)), "tracks", JSON_LINES_MEDIA_TYPE
    )
    (tmp_path / "overlay.mp4").write_bytes(b"film")
    overlay = store_artifact(files, tmp_path / "overlay.mp4", "overlay_video", "video/mp4")
    span = factories.make_timeline(240).time_range(24, 27)
    finish_run(database, job, "mttr", [Result("track", query, span, 0.5) for query in range(2)], [lines, overlay])
    return job


def overlay_of(client: FlaskClient, job: Job) -> str:
    items = client.get(f"/v1/jobs/{job.id}/artifacts").json["items"]
    return str(next(item["urls"]["self"] for item in items if item["kind"] == "overlay_video"))


def test_masks(client: FlaskClient, tracked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    found = form(client, tracked, "ModelScopeTracks")
    assert found["masks"] == [[{"size": [4, 3], "counts": f"40{query}"}] * 3 for query in range(2)]
    assert found["timestamps"] == ["00:00:00.000", "00:00:00.042", "00:00:00.083"]
    assert found["output_video"] == overlay_of(client, tracked)
    monkeypatch.setattr(modelscope, "MAX_TRACKS_BYTES", 100)
    assert refusal(client, tracked) == ("/query/format", "too_large")


def test_masks_whose_file_is_gone(client: FlaskClient, tracked: Job, files: ContentStorage, data_dir: Path) -> None:
    for path in (data_dir / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    answer = client.get(f"/v1/jobs/{tracked.id}/results?format=modelscope")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def job_of(database: Engine, run_id: str) -> str:
    return next(job.id for job in jobs.list_jobs(database, limit=10) if run_id in {run.id for run in job.runs})


def test_an_embedding(client: FlaskClient, database: Engine) -> None:
    """As float32 has it, not normalised."""
    run = factories.add_embeddings(database, [[0.1, -2.5, 3e-7]], per="video")
    found = form(client, job_of(database, run.id), "ModelScopeEmbedding")
    assert found == {"video_embedding": [0.10000000149011612, -2.5, pytest.approx(3e-7, rel=1e-7)]}


def test_no_published_form(client: FlaskClient, database: Engine) -> None:
    run = factories.add_embeddings(database, [[1.0, 2.0]], per="shot")
    assert refusal(client, job_of(database, run.id)) == ("/query/format", "one_a_shot")
    assert refusal(client, factories.create_job(database), "&model=shots") == ("/query/model", "not_of_this_model")


def test_a_job_of_many_models_asks_which(client: FlaskClient, database: Engine, tracked: Job) -> None:
    asked = (
        factories.make_analysis("clip_it"),
        *(factories.make_analysis("mttr", queries=(text,)) for text in ("a", "b")),
    )
    job = factories.create_job(database, analyses=asked)
    assert refusal(client, job) == ("/query/model", "ambiguous_model")
    assert refusal(client, job, f"&run_id={job.runs[1].id}") == ("/query/format", "nothing_yet")
    assert refusal(client, job, f"&run_id={tracked.runs[0].id}") == ("/query/run_id", "unknown_run")
