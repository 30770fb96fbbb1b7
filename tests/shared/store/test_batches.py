"""Batches on a real Postgres: planned, fed under a cap, paused, cancelled, retried, and only the rest after a stop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from itertools import product
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Engine, text

from shared.errors import Conflict, InvalidRequest, NotFound, OutOfMemory
from shared.store.batches import batches, selection
from shared.store.batches.batches import NewBatch
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.runs import queues, runs
from shared.store.videos import videos
from shared.values import Progress, RunState, Stage, WakeUp, derive_job_state
from shared.values.batches import Batch, BatchState, Selection, Workload, derive_batch_state
from shared.values.timetable import DailyHours
from tests.support import factories

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SHOTS = ("shots", factories.make_analysis().params.model_dump(mode="json"))
OTHER = ("shots", factories.make_analysis(detector="hsv_luv").params.model_dump(mode="json"))


def work(*analyses: Any, **changed: Any) -> Workload:
    return Workload(analyses=analyses or (SHOTS,), **changed)


def made(engine: Engine, films: int, kind: str = "batch", **changed: Any) -> Batch:
    for _ in range(films):
        factories.add_video(engine)
    return batches.create_batch(engine, NewBatch("all of it", work(**changed), kind))


def feed(engine: Engine, batch: Batch, now: datetime = NOW) -> list[WakeUp]:
    return batches.dispatch_jobs(engine, batch.id, now, 3)


def end(engine: Engine, wakes: Sequence[WakeUp], *, failed: bool = False) -> None:
    """What a worker would do with each."""
    for wake in wakes:
        claim = factories.claim_run(engine, wake.run_id)
        assert claim is not None
        if failed:
            runs.fail_run(engine, claim, OutOfMemory("too large").to_problem(), retry=False, backoff_s=0)
        else:
            stage = Stage("encode", "done", 240, 240, "frame", 5.0)
            runs.finish_run(
                engine, claim, progress=Progress((stage,), 1.0), decode_failures=0, results=[], artifacts=[]
            )  # fmt: skip


def test_a_batch_is_fed_under_its_cap(database: Engine) -> None:
    batch = made(database, 5, cap=2)
    assert (batch.state, batch.counts) == (BatchState.QUEUED, {"waiting": 5})
    first = feed(database, batch)
    assert len(first) == 2
    assert {wake.priority for wake in first} == {0}
    assert feed(database, batch) == []
    end(database, first)
    told = batches.get_batch(database, batch.id)
    assert (told.state, dict(told.counts), told.fraction) == (BatchState.RUNNING, {"succeeded": 2, "waiting": 3}, 0.4)
    assert told.eta_s is not None
    end(database, feed(database, batch))
    assert batches.list_pending_batches(database) == [batch.id]
    end(database, feed(database, batch))
    assert feed(database, batch) == []
    assert batches.list_pending_batches(database) == []
    assert batches.get_batch(database, batch.id).state is BatchState.SUCCEEDED


def test_each_film_has_one_job_whatever_feeds(database: Engine) -> None:
    batch = made(database, 30, cap=None)
    assert len(feed(database, batch)) + len(feed(database, batch)) == 30
    assert feed(database, batch) == []
    items = batches.list_items(database, batch.id, limit=100)
    assert len({item.job_id for item in items}) == len({item.video_id for item in items}) == 30


def test_paused_and_resumed(database: Engine) -> None:
    batch = made(database, 3, cap=1)
    started = feed(database, batch)
    assert batches.pause_batch(database, batch.id).state is BatchState.PAUSED
    end(database, started)
    assert feed(database, batch) == []
    assert batches.list_pending_batches(database) == []
    assert batches.resume_batch(database, batch.id).state is BatchState.RUNNING
    assert len(feed(database, batch)) == 1


def test_cancelled(database: Engine) -> None:
    batch = made(database, 3, cap=2)
    one, other = feed(database, batch)
    end(database, [one])
    claim = factories.claim_run(database, other.run_id)
    assert claim is not None
    assert batches.cancel_batch(database, batch.id).state is BatchState.CANCELLING
    assert feed(database, batch) == []
    runs.acknowledge_cancel(database, claim)
    told = batches.cancel_batch(database, batch.id)
    assert (told.state, dict(told.counts)) == (BatchState.CANCELLED, {"cancelled": 1, "succeeded": 1, "waiting": 1})
    with pytest.raises(Conflict):
        batches.resume_batch(database, batch.id)


def test_what_failed_is_retried_and_no_more(database: Engine) -> None:
    batch = made(database, 3)
    wakes = feed(database, batch)
    end(database, wakes[:2])
    end(database, wakes[2:], failed=True)
    told = batches.get_batch(database, batch.id)
    assert (told.state, dict(told.counts)) == (BatchState.FAILED, {"failed": 1, "succeeded": 2})
    again = batches.retry_batch(database, batch.id)
    assert (again.state, dict(again.counts)) == (BatchState.RUNNING, {"succeeded": 2, "waiting": 1})
    [sent] = feed(database, batch)
    assert len(jobs.list_jobs(database, limit=10)) == 3  # the same job, planned once more
    end(database, [sent])
    assert batches.get_batch(database, batch.id).state is BatchState.SUCCEEDED
    with pytest.raises(Conflict, match="failed"):
        batches.retry_batch(database, batch.id)


def test_only_within_its_hours(database: Engine) -> None:
    batch = made(database, 1, hours=DailyHours(time(22), time(6), "UTC"))
    assert feed(database, batch, NOW) == []
    assert len(feed(database, batch, NOW.replace(hour=23))) == 1


def test_a_model_that_is_gone_refuses_the_film_and_says_so(database: Engine) -> None:
    batch = made(database, 1)
    with database.begin() as connection:
        connection.execute(text("UPDATE batches SET work = jsonb_set(work, '{analyses,0,params}', '{\"x\": 1}')"))
    assert feed(database, batch) == []
    [item] = batches.list_items(database, batch.id, limit=10)
    assert (item.state, (item.error or {})["code"]) == ("refused", "invalid_request")
    assert batches.get_batch(database, batch.id).state is BatchState.FAILED


def test_a_reprocess_takes_what_is_left_and_started_again_only_the_rest(database: Engine) -> None:
    batch = made(database, 4, kind="reprocess", cap=2)
    end(database, feed(database, batch))
    again = batches.create_batch(database, NewBatch("again", work(), "reprocess"))
    assert again.videos == 2
    end(database, feed(database, batch))
    with pytest.raises(InvalidRequest, match="nothing is left"):
        batches.create_batch(database, NewBatch("again", work(), "reprocess"))
    # what the second one was to do has been done by the first: its jobs share those runs
    assert feed(database, again) == []
    assert batches.get_batch(database, again.id).state is BatchState.SUCCEEDED


def test_what_was_current_before_is_remembered(database: Engine) -> None:
    batch = made(database, 1)
    end(database, feed(database, batch))
    [item] = batches.list_items(database, batch.id, limit=1)
    assert item.before == {}
    first = jobs.get_job(database, item.job_id or "").runs[0].id
    other = batches.create_batch(database, NewBatch("other", work(OTHER), "reprocess"))
    feed(database, other)
    [item] = batches.list_items(database, other.id, limit=1)
    assert item.before == {"shots": first}


def test_a_dry_run_says_what_it_comes_to(database: Engine) -> None:
    for _ in range(3):
        factories.add_video(database)
    done, failed, _ = videos.list_videos(database, limit=10)
    end(database, jobs.create_job(database, NewJob(done.id, (factories.make_analysis(),))).wakeups)
    end(database, jobs.create_job(database, NewJob(failed.id, (factories.make_analysis(),))).wakeups, failed=True)
    plan = selection.dry_run(database, work())
    assert (len(plan.selected), len(plan.to_do), plan.skipped) == (3, 2, {"done": 1})
    [estimate] = plan.estimates
    # one measured run: 5 s for a film of 10.01 s; two such films are left
    assert (estimate.runs, estimate.measured, estimate.usual) == (2, 1, pytest.approx(10.0))
    assert estimate.to_dict()["seconds"] == {"low": 10.0, "usual": 10.0, "high": 10.0}
    counts = {
        only: len(selection.dry_run(database, work(selection=Selection(only=only))).selected)  # type: ignore[arg-type]
        for only in ("all", "missing", "outdated", "missing_or_outdated", "failed")
    }
    assert counts == {"all": 3, "missing": 2, "outdated": 0, "missing_or_outdated": 2, "failed": 1}
    outdated = selection.dry_run(database, work(OTHER, selection=Selection(only="outdated")))
    assert outdated.to_do == (done.id,)
    coded = {code: len(selection.dry_run(database, work(selection=Selection(only="failed", code=code))).selected)
             for code in ("out_of_memory", "worker_lost")}  # fmt: skip
    assert coded == {"out_of_memory": 1, "worker_lost": 0}


def test_nothing_found_is_not_missing(database: Engine) -> None:
    batch = made(database, 1)
    end(database, feed(database, batch))  # a finished run without a result
    assert selection.dry_run(database, work(selection=Selection(only="missing"))).selected == ()


def test_films_are_chosen_by_id_and_by_label(database: Engine) -> None:
    one, other = factories.add_video(database), factories.add_video(database)
    jobs.create_job(database, NewJob(one.id, (factories.make_analysis(),), labels={"show": "x"}))
    assert selection.dry_run(database, work(selection=Selection(labels={"show": "x"}))).selected == (one.id,)
    assert selection.dry_run(database, work(selection=Selection(videos=(other.id,)))).selected == (other.id,)
    assert selection.dry_run(database, work(selection=Selection(sources=("src_none",)))).selected == ()


def test_a_paused_queue_starts_nothing(database: Engine) -> None:
    job = factories.create_job(database)
    assert queues.set_queue_mode(database, "shots", "paused").mode == "paused"
    assert factories.claim_run(database, job.runs[0].id) is None
    told = next(queue for queue in queues.list_queues(database) if queue.model == "shots")
    assert (told.depth, told.running, told.mode) == (1, 0, "paused")
    assert queues.list_draining_models(database, ["shots"]) == []
    queues.set_queue_mode(database, "shots", "draining")
    assert queues.list_draining_models(database, ["shots", "bassl"]) == ["shots"]
    assert factories.claim_run(database, job.runs[0].id) is not None
    assert queues.set_queue_mode(database, "shots", "open").since is None


def test_listed_and_not_found(database: Engine) -> None:
    made(database, 1)
    second = made(database, 1)
    newest, oldest = batches.list_batches(database, limit=10)
    assert newest.id == second.id
    assert batches.list_batches(database, limit=10, after=(newest.created_at, newest.id)) == [oldest]
    with pytest.raises(NotFound):
        batches.get_batch(database, "bat_none")


def test_the_statement_and_the_function_agree_on_states(database: Engine) -> None:
    """Every combination of two runs' states, with and without a cancel of both and of the job."""
    factories.add_video(database)
    batch = batches.create_batch(database, NewBatch("one", work(SHOTS, OTHER)))
    feed(database, batch)
    [item] = batches.list_items(database, batch.id, limit=1)
    one, other = (run.id for run in jobs.get_job(database, item.job_id or "").runs)
    set_run = text("UPDATE runs SET state = :state, cancel_requested = :requested, key = id WHERE id = :id")
    set_job = text("UPDATE jobs SET cancelled_at = CASE WHEN :cancelled THEN now() END")
    for first, second, asked, cancelled in product(RunState, RunState, (False, True), (False, True)):
        with database.begin() as connection:
            connection.execute(set_run, [
                {"state": state, "requested": asked, "id": run_id} for run_id, state in ((one, first), (other, second))
            ])  # fmt: skip
            connection.execute(set_job, {"cancelled": cancelled})
        [item] = batches.list_items(database, batch.id, limit=1)
        assert item.state == derive_job_state([(first, asked), (second, asked)], cancelled).value


@given(st.dictionaries(st.sampled_from(["waiting", "queued", "running", "succeeded", "failed"]), st.integers(1, 3)))
def test_a_batch_has_one_state(counts: dict[str, int]) -> None:
    state = derive_batch_state(counts, paused=False, cancelled=False)
    live = sum(counts.get(name, 0) for name in ("queued", "running"))
    assert state.has_ended == (not counts.get("waiting") and not live)
    assert derive_batch_state(counts, paused=False, cancelled=True) is (
        BatchState.CANCELLING if live else BatchState.CANCELLED
    )
