"""`/metrics`, read as Prometheus reads it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families
from sqlalchemy import Engine, text

from shared.catalog import CATALOG
from shared.errors import MediaCorrupt, WeightsMissing
from shared.store import workers
from shared.store.batches import batches, schedules
from shared.store.batches.batches import NewBatch
from shared.store.batches.schedules import NewSchedule
from shared.store.runs import runs, sweep
from shared.values import Progress, Stage
from shared.values.batches import Workload
from shared.values.timetable import Timetable
from tests.api.conftest import MakeApp
from tests.support import factories

OPEN = "application/openmetrics-text; version=1.0.0"
WORK = Workload(analyses=(("shots", factories.make_analysis().params.model_dump(mode="json")),))
Samples = dict[str, dict[tuple[str, ...], float]]


def scraped(client: FlaskClient) -> Samples:
    """Metric -> values of its labels, in the order of their names -> number."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found: Samples = {}
    for family in families(answer.text):
        for sample in family.samples:
            values = tuple(value for _, value in sorted(sample.labels.items()))
            assert values not in found.setdefault(sample.name.removeprefix("sceneworks_"), {}), sample
            found[sample.name.removeprefix("sceneworks_")][values] = sample.value
    return found


def test_the_ledger_in_numbers(client: FlaskClient, database: Engine) -> None:
    for _ in range(2):
        factories.create_job(database, priority="low")
    done = factories.claim_run(database, factories.create_job(database).runs[0].id)
    assert done is not None
    stage = Stage("encode", "done", 480, 480, "frame", 2.0)
    runs.finish_run(
        database, done, progress=Progress((stage,), 1.0), decode_failures=0, results=[], artifacts=[]
    )  # fmt: skip
    failing = factories.claim_run(database, factories.create_job(database).runs[0].id)
    assert failing is not None
    runs.fail_run(database, failing, MediaCorrupt("broken").to_problem(), retry=False, backoff_s=0)
    told = scraped(client)
    assert told["queue_depth"]["shots", "low"] == 2
    assert told["queue_depth"]["bassl", "normal"] == 0
    assert list(told["queue_oldest_seconds"]) == [("shots", "low")]
    # labels in the order of their names: code, model, state
    assert told["runs"] == {
        ("", "shots", "queued"): 2, ("", "shots", "done"): 1, ("media_corrupt", "shots", "failed"): 1,
    }  # fmt: skip
    assert told["stage_units_per_second"] == {("shots", "encode", "frame"): 240}
    assert told["jobs"] == {("queued",): 2, ("succeeded",): 1, ("failed",): 1}
    assert told["disk_free_bytes"][()] > 0


def test_batches_and_schedules(client: FlaskClient, database: Engine) -> None:
    factories.add_video(database)
    now = datetime.now(UTC)
    batches.create_batch(database, NewBatch("of the north", WORK))
    made = [
        schedules.create_schedule(database, NewSchedule(name, Timetable(None, 600, "UTC", now), WORK), now)
        for name in "ab"
    ]
    schedules.pause_schedule(database, made[1].id)
    told = scraped(client)
    assert told["batches"] == {("queued",): 1}
    assert told["schedule_next_seconds"] == {(made[0].id,): pytest.approx(600, abs=30)}
    with database.begin() as connection:
        connection.execute(text("UPDATE schedules SET next_at = :at"), {"at": now - timedelta(minutes=5)})
    assert scraped(client)["schedule_next_seconds"][made[0].id,] < -200


def test_counters_begin_at_nothing_and_outlive_their_rows(client: FlaskClient, database: Engine) -> None:
    before = scraped(client)
    assert before["leases_lost_total"] == dict.fromkeys([(model,) for model in CATALOG], 0)
    assert set(before["messages_dropped_total"].values()) == {0}
    run_id = factories.create_job(database).runs[0].id
    factories.claim_run(database, run_id)
    assert factories.claim_run(database, run_id) is None
    with database.begin() as connection:
        connection.execute(text("UPDATE runs SET lease_until = now() - interval '1 s'"))
    sweep.free_expired_runs(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM videos"))
    after = scraped(client)
    assert "runs" not in after
    assert after["leases_lost_total"]["shots",] == 1
    assert after["messages_dropped_total"]["shots", "running"] == 1
    assert after["results_dropped_total"]["shots",] == 0


def test_workers_and_what_they_cannot_serve(client: FlaskClient, database: Engine) -> None:
    missing = WeightsMissing("There are no weights of bassl.").to_problem()
    offers = [
        {"model": "shots", "weights": "a" * 64, "error": None},
        {"model": "bassl", "weights": None, "error": missing},
    ]
    for name in ("one", "gone"):
        workers.announce_worker(
            database, name, state="ready", reason=None, models=offers, device="cuda:0", precision="bf16"
        )
    with database.begin() as connection:
        connection.execute(text("UPDATE workers SET heartbeat_at = now() - interval '1 minute' WHERE id = 'gone'"))
    told = scraped(client)
    assert told["workers"] == {("cuda:0", "ready"): 1, ("cuda:0", "silent"): 1}
    served = {labels: count for labels, count in told["model_workers"].items() if labels[1] in {"shots", "bassl"}}
    assert served == {("", "shots"): 1, ("", "bassl"): 0, ("weights_missing", "bassl"): 1}


def test_the_same_as_open_metrics(client: FlaskClient, database: Engine) -> None:
    factories.create_job(database)
    answer = client.get("/metrics", headers={"Accept": OPEN})
    assert answer.content_type.startswith("application/openmetrics-text")
    told = {family.name: family.type for family in open_families(answer.text)}
    assert told["sceneworks_leases_lost"] == "counter"
    assert told["sceneworks_runs"] == "gauge"


def test_it_asks_for_no_key_and_names_no_video(make_app: MakeApp, database: Engine) -> None:
    """As `/healthz`: Prometheus can scrape it where the API has keys; so it must not tell what only keys open."""
    job = factories.create_job(database, labels={"show": "secret"}, external_id="episode")
    batches.create_batch(database, NewBatch("of the north", WORK))
    client = make_app(api_keys=hashlib.sha256(b"key").hexdigest()).test_client()
    assert client.get("/v1/queues").status_code == 401
    said = client.get("/metrics")
    assert said.status_code == client.get("/healthz").status_code == 200
    for word in ("film.mp4", "secret", "episode", "north", job.id, job.video_id):
        assert word not in said.text
