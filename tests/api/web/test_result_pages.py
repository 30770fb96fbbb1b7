"""What a job found in a video, as the server draws it: summaries, masks, likeness, without scripts."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.web.pages.filters import format_param
from api.web.pages.summary import build_score_curve
from shared.storage import ContentStorage
from shared.store import results
from shared.store.jobs import jobs
from shared.values import Artifact, Job, Result
from shared.values.tracks import JSON_LINES_MEDIA_TYPE, QUERY_COLOURS
from tests.api.conftest import finish_run, store_artifact
from tests.support import factories


def words(text: str) -> str:
    """What a reader sees of some HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def section(client: FlaskClient, job: Job | str, name: str, query: str = "") -> str:
    page = client.get(f"/jobs/{job if isinstance(job, str) else job.id}{query}").text
    return page.partition(f'<section id="{name}"')[2].partition("</section>")[0]


def links(text: str) -> list[str]:
    return [html.unescape(link) for link in re.findall(r'href="([^"#?][^"]*)"', text)]


def highlight(seq: int, bound: tuple[int, int], rule: str = "knapsack") -> Result:
    return Result(
        "highlight", seq, factories.make_timeline(240).time_range(*bound), 0.5, {"segments": [0, 0], "rule": rule}
    )


def caption(text: str, source: str) -> Result:
    return Result("caption", 0, data={"text": text, "source": source, "places": 7})


def summed_up(database: Engine, *rows: Result, made: tuple[Artifact, ...] = (), texts: tuple[str, ...] = ("a",)) -> Job:
    """A job with a question for each text; the first one is answered."""
    job = factories.create_job(
        database, analyses=tuple(factories.make_analysis("clip_it", sentences=[one]) for one in texts)
    )
    finish_run(database, job, "clip_it", rows, made)
    return job


def test_a_summary(client: FlaskClient, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    (tmp_path / "summary.mp4").write_bytes(b"film")
    film = store_artifact(files, tmp_path / "summary.mp4", "summary_video", "video/mp4")
    line = factories.make_timeline(240)
    scores = [Result("frame_score", seq, line.time_range(24 * seq, 24 * seq + 24), seq / 10) for seq in range(10)]
    found = (highlight(0, (24, 48)), highlight(1, (120, 240)), caption("<a> bird", "request"), *scores)
    job = summed_up(database, *found, made=(film,))
    html_ = section(client, job, "summary")
    assert "2 highlights, 6.0 s of 10.0 s" in words(html_)
    assert "Guided by <q>&lt;a&gt; bird</q>." in html_
    assert f'<video id="summary-film" src="/v1/artifacts/{film.id}"' in html_
    assert 'aria-label="Highlight 2, from 00:00:05:00, 5.0 s"' in html_
    assert "1 00:00:01:00 1.0 s 0.500 2 00:00:05:00 5.0 s 0.500" in words(html_.partition("<tbody>")[2])
    assert 'd="M0.000 10H1.001L1.001 8.889H2.002' in html_
    assert "Scores from 0.000 (below) to 0.900 (above)" in words(html_)
    exports = [link for link in links(html_) if "format=" in link]
    assert [link.rpartition("=")[2] for link in exports] == ["edl", "otio", "fcpxml", "vtt", "modelscope"]
    assert [client.get(link).status_code for link in exports] == [200] * 5
    assert 'id="summary"' not in client.get(f"/jobs/{job.id}?after=x").text


def test_the_words_of_a_summary(client: FlaskClient, database: Engine) -> None:
    """Which text was used, and that the budget was too small, is said."""
    job = summed_up(database, highlight(0, (0, 10), "part"), caption("a video", "neutral"))
    text = words(section(client, job, "summary"))
    assert "No sentences were given, so the neutral text guided it: a video ." in text
    assert "No segment of the video fits into the budget: a part of the best one was taken." in text
    assert "The video has no frames to choose from." in words(section(client, summed_up(database), "summary"))


def test_each_question_has_its_summary(client: FlaskClient, database: Engine) -> None:
    job = summed_up(database, highlight(0, (0, 24)), texts=("a rabbit", "a bird"))
    assert "Question" not in section(client, job, "summary")  # the other is not answered yet
    finish_run(database, job, "clip_it", [highlight(0, (24, 120))], index=1)
    assert "1.0 s of" in words(section(client, job, "summary"))
    other = section(client, job, "summary", f"?summary={job.runs[1].id}")
    assert "4.0 s of" in words(other)
    assert f'href="?summary={job.runs[1].id}#summary" aria-current="true">Question 2</a>' in other


def test_a_long_curve_is_thinned(database: Engine) -> None:
    """Neighbours are joined: their time together, the mean of their scores."""
    line = factories.make_timeline(240)
    scores = [Result("frame_score", seq, line.time_range(seq, seq + 1), float(seq % 2)) for seq in range(240)]
    job = summed_up(database, *scores)
    whole = results.load_score_curve(database, job.id, job.runs[0].id, "frame_score", 1000)
    assert [(span.start.frame, span.end.frame, score) for span, score in whole] == [
        (seq, seq + 1, seq % 2) for seq in range(240)
    ]
    few = results.load_score_curve(database, job.id, job.runs[0].id, "frame_score", 50)
    assert [(span.start.frame, span.end.frame) for span, _ in few] == [(5 * at, 5 * at + 5) for at in range(48)]
    assert [score for _, score in few] == [pytest.approx(0.6 if at % 2 else 0.4) for at in range(48)]
    drawn = build_score_curve(few, [])
    assert drawn is not None
    assert (drawn.line.count("H"), drawn.lowest, drawn.highest) == (48, pytest.approx(0.4), pytest.approx(0.6))
    flat = build_score_curve([(line.time_range(0, 240), 0.5)], [])
    assert flat is not None
    assert flat.line == "M0.000 5H10.010"
    assert build_score_curve([], []) is None


def test_masks(client: FlaskClient, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    made = []
    for name, kind, media_type in (
        ("tracks.jsonl", "tracks", JSON_LINES_MEDIA_TYPE),
        ("overlay.mp4", "overlay_video", "video/mp4"),
    ):
        (tmp_path / name).write_bytes(b"{}\n")
        made.append(store_artifact(files, tmp_path / name, kind, media_type))
    job = factories.create_job(database, analyses=(factories.make_analysis("mttr", queries=("the <b>", "a bird")),))
    span, data = factories.make_timeline(240).time_range(24, 48), {"frames_visible": 12, "mean_area": 1.0, "windows": 2}
    rows = [
        Result(
            "track",
            seq,
            span,
            0.25,
            data | {"query": query, "colour": list(QUERY_COLOURS[seq]), "switches": [30] * seq},
        )
        for seq, query in enumerate(("the <b>", "a bird"))
    ]
    finish_run(database, job, "mttr", rows, made)
    html_ = section(client, job, "masks")
    table = words(html_.partition("<tbody>")[2].partition("</tbody>")[0])
    assert table == ("the <b> 0.250 12 of 24 frames a bird 0.250 12 of 24 frames, with 1 change of the tracked object")
    assert 'fill="rgb(41,171,226)"' in html_
    assert 'data-size="3" data-start="1.001000" data-end="2.002000"' in html_
    assert client.get(f"/v1/artifacts/{made[1].id}", buffered=True).data == b"{}\n"
    assert f"/v1/artifacts/{made[1].id}" in links(html_)


def test_no_frames_in_the_range(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database, analyses=(factories.make_analysis("mttr", queries=("a",)),))
    finish_run(database, job, "mttr", [])
    assert "No frame of the video lies in the requested range." in section(client, job, "masks")


def job_of(database: Engine, run_id: str) -> str:
    return next(job.id for job in jobs.list_jobs(database, limit=10) if run_id in {run.id for run in job.runs})


def test_likeness(client: FlaskClient, database: Engine) -> None:
    mine = job_of(database, factories.add_embeddings(database, [[1.0, 0.0], [0.0, 1.0]]).id)
    assert "There is nothing else to compare with yet." in section(client, mine, "likeness")
    other = factories.add_embeddings(database, [[3.0, 4.0], [0.0, 1.0]])
    html_ = section(client, mine, "likeness", "?shot=0")
    assert "shots like shot 1" in words(html_)
    assert re.findall(r'aria-label="similarity ([\d.-]+)"', html_) == ["0.600", "0.000"]
    assert f'src="/v1/videos/{other.video_id}/thumbnail.jpg?at=0.500000"' in html_
    assert f'href="/v1/videos/{other.video_id}/media#t=0.000000,1.000000"' in html_
    assert '<option value="1">shot 2</option>' in html_
    assert "This video has no embedding of that number." in section(client, mine, "likeness", "?shot=7")
    assert client.get(f"/jobs/{mine}?shot=x").status_code == 400


def test_videos_that_cannot_be_compared(client: FlaskClient, database: Engine) -> None:
    mine = job_of(database, factories.add_embeddings(database, [[1.0, 0.0]], per="video").id)
    factories.add_embeddings(database, [[1.0, 0.0]], per="video", weights="b" * 64)
    factories.add_embeddings(database, [[1.0, 1.0]], per="video")
    text = words(section(client, mine, "likeness"))
    assert "videos like this video" in text
    assert "1 video has embeddings of other weights, which cannot be compared." in text
    zero = job_of(database, factories.add_embeddings(database, [[0.0, 0.0]], per="video").id)
    assert "This embedding has no direction: its numbers are all zero." in section(client, zero, "likeness")


def test_parameters_in_words() -> None:
    assert [format_param(one) for one in (True, False, None, [], ["a", "b"], 0.5, "", "x")] == [
        "yes", "no", "none", "none", "a; b", "0.5", "none", "x",
    ]  # fmt: skip
