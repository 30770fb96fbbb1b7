"""A part of a turned video through the real loop: network, writer, files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from shared.catalog import MttrParams
from tests.support import sample_videos
from tests.support.model_runs import run_model
from worker.models.mttr.tracks.masks import decode_rle
from worker.video.probe import probe_video


def test_a_part_of_a_turned_video(tmp_path: Path) -> None:
    """Frames 10 to 29, in windows of 20 and 2 frames: numbers and times of the video, masks as it is shown."""
    sample_videos.make_rotated(tmp_path / "film.mp4")
    params = MttrParams(
        queries=("a black bike", "guy on a bike"), start_s=0.4, end_s=1.2, link=True, masks=True, short_side=96
    )
    execution = run_model("mttr", tmp_path / "film.mp4", params, tmp_path / "scratch")
    video, files = execution.video, {file.kind: file for file in execution.outcome.files}
    assert (video.width, video.height) == (120, 160)
    assert set(files) == {"tracks", "overlay_video", "masks"}
    lines = [json.loads(line) for line in files["tracks"].path.read_text().splitlines()]
    assert [(line["frame"], line["query"]) for line in lines] == [
        (frame, query) for frame in range(10, 30) for query in range(2)
    ]
    assert lines[0]["seconds"] == 0.4
    for line in lines:
        mask = decode_rle(line["mask"])
        assert mask.shape == (160, 120)
        assert line["area"] == mask.sum()
    for seq, row in enumerate(execution.outcome.results):
        mine = [line for line in lines if line["query"] == seq]
        assert (row.kind, row.seq, row.data["query"], row.data["windows"]) == ("track", seq, params.queries[seq], 2)
        assert row.range is not None
        assert (row.range.start.frame, row.range.end.frame) == (10, 30)
        assert np.isclose(row.score or 0, np.mean([line["score"] for line in mine]), atol=1e-6)
        assert row.data["frames_visible"] == sum(line["area"] > 0 for line in mine)
        assert {line["instance"] for line in mine[:18]} == {mine[0]["instance"]}
    made = probe_video(files["overlay_video"].path)
    assert (made.frames, made.width, made.height, len(made.audio)) == (20, 120, 160 + 2 * 36, 1)
    with zipfile.ZipFile(files["masks"].path) as archive:
        assert len(archive.namelist()) == 40
    stage = execution.stages[4]
    assert (stage.name, stage.done, stage.of, stage.unit) == ("render", 40, 40, "frame")
