"""Migration 0006 renames stored words and loses nothing: filled at 0005, upgraded, looked at, downgraded, equal."""

from __future__ import annotations

import json
from typing import Any

from alembic import command
from sqlalchemy import Engine, text

from shared.db import alembic_config, create_db_engine
from tests.conftest import create_empty_database

OLD_STAGES = [{"name": "encode", "done": 2, "seconds": 0.5}, {"name": "decode", "done": 1, "seconds": 0.25}]
NEW_STAGES = [{"name": "encode", "done": 2, "seconds": 0.5}, {"name": "postprocess", "done": 1, "seconds": 0.25}]
OLD_OUTCOME = {"films": [{"state": "succeeded", "films": 2, "fraction": 2.0}, {"state": "failed", "films": 1}]}
NEW_OUTCOME = {"videos": [{"state": "succeeded", "videos": 2, "fraction": 2.0}, {"state": "failed", "videos": 1}]}
OLD_PARAMS, NEW_PARAMS = {"query": "a dog", "film": True}, {"query": "a dog", "summary_video": True}
INPUTS = {
    "videos": "INSERT INTO videos (id, sha256, size, name, media_type, probe) VALUES ('vid', 'a', 1, 'v', 'v/v', '{}')",
    "runs": """
        INSERT INTO runs (id, video_id, model, params, key, encode_key, state, priority, max_attempts, stages)
        VALUES (:id, 'vid', :model, :params, :id, :id, 'done', 1, 3, :stages)
    """,
    "artifacts": """
        INSERT INTO artifacts (id, run_id, kind, name, media_type, sha256, size)
        VALUES (:kind, 'run_clip', :kind, :kind, 'video/mp4', 'b', 1)
    """,
    "batches": """
        INSERT INTO batches (id, name, kind, priority, work, outcome)
        VALUES (:id, :id, 'batch', 0, :work, CAST(:outcome AS jsonb))
    """,
    "schedules": """
        INSERT INTO schedules (id, name, every_s, timezone, catch_up, work, next_at)
        VALUES ('sch', 's', 3600, 'UTC', 'skip', :work, now())
    """,
}
TABLES = {
    "runs": "SELECT id, params, stages FROM runs ORDER BY id",
    "artifacts": "SELECT kind FROM artifacts ORDER BY kind",
    "batches": "SELECT id, work, outcome FROM batches ORDER BY id",
    "schedules": "SELECT work FROM schedules",
}


def make_work(params: dict[str, Any]) -> dict[str, Any]:
    """A workload whose first analysis has no parameter that is renamed."""
    other = {"model": "mttr", "params": {"film": "of another model"}}
    return {"analyses": [other, {"model": "clip_it", "params": params}], "cap": 2, "labels": {"film": "x"}}


def fill_old_database(engine: Engine) -> None:
    clip = {"id": "run_clip", "model": "clip_it", "params": OLD_PARAMS, "stages": OLD_STAGES}
    other = {"id": "run_mttr", "model": "mttr", "params": {"film": 1}, "stages": []}
    batches: list[dict[str, Any]] = [
        {"id": "bat_ended", "work": make_work(OLD_PARAMS), "outcome": OLD_OUTCOME},
        {"id": "bat_empty", "work": {"analyses": []}, "outcome": {"films": []}},
        {"id": "bat_live", "work": make_work(OLD_PARAMS), "outcome": None},
    ]
    rows: list[tuple[str, dict[str, Any]]] = [("videos", {}), ("runs", clip), ("runs", other)]
    rows += [("artifacts", {"kind": kind}) for kind in ("keyframes", "overlay_film", "summary_film")]
    rows += [("batches", batch) for batch in batches]
    rows += [("schedules", {"work": make_work(OLD_PARAMS)})]
    with engine.begin() as connection:
        for table, values in rows:
            encoded = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in values.items()}
            connection.execute(text(INPUTS[table]), encoded)


def read_tables(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    with engine.connect() as connection:
        return {table: [tuple(row) for row in connection.execute(text(query))] for table, query in TABLES.items()}


def test_stored_words_are_renamed_and_restored(postgres_url: str) -> None:
    url = create_empty_database(postgres_url)
    engine = create_db_engine(url)
    command.upgrade(alembic_config(url), "0005")
    fill_old_database(engine)
    before = read_tables(engine)

    command.upgrade(alembic_config(url), "0006")
    after = read_tables(engine)
    assert after["runs"] == [("run_clip", NEW_PARAMS, NEW_STAGES), ("run_mttr", {"film": 1}, [])]
    assert after["artifacts"] == [("keyframes",), ("overlay_video",), ("summary_video",)]
    assert after["batches"] == [
        ("bat_empty", {"analyses": []}, {"videos": []}),
        ("bat_ended", make_work(NEW_PARAMS), NEW_OUTCOME),
        ("bat_live", make_work(NEW_PARAMS), None),
    ]
    assert after["schedules"] == [(make_work(NEW_PARAMS),)]

    command.downgrade(alembic_config(url), "0005")
    assert read_tables(engine) == before
    engine.dispose()
