"""What is counted and what is read for those who watch: exact, in the transaction of the event, and kept once ended."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.errors import MediaCorrupt, OutOfMemory
from shared.store import counters
from shared.store.batches import batches
from shared.store.jobs import jobs
from shared.store.jobs.jobs import JobFilter
from shared.store.operations import metrics
from shared.store.runs import queues, runs, sweep
from shared.store.videos import videos
from shared.values import JobState, Progress, RunState, Stage, derive_job_state
from shared.values.batches import Batch, BatchState
from tests.shared.store.test_batches import NOW, end, feed, made
from tests.support import factories
from tests.support.statements import lock_is_awaited
from tests.support.waiting import wait_until


def counted(engine: Engine, name: str) -> dict[tuple[str, ...], int]:
    found = metrics.read_metrics(engine).counters
    return {tuple(value for _, value in labels): count for (one, labels), count in found.items() if one == name}


def lose(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET lease_until = now() - interval '1 s' WHERE state = 'running'"))


def finish(engine: Engine, claim: Any, *stages: Stage) -> Any:
    return runs.finish_run(
        engine, claim, progress=Progress(stages, 1.0), decode_failures=0, results=[], artifacts=[]
    )  # fmt: skip


# Events ---------------------------------------------------------------------------------------------------------------


def test_a_lease_is_lost_once_whoever_notices(database: Engine) -> None:
    """By the sweep, or by the next worker before it."""
    one, other = (factories.create_job(database).runs[0].id for _ in range(2))
    for run_id in (one, other):
        assert factories.claim_run(database, run_id)
    lose(database)
    assert factories.claim_run(database, one, owner="worker-2")
    assert [freed.run_id for freed in sweep.free_expired_runs(database)] == [other]
    assert sweep.free_expired_runs(database) == []
    assert counted(database, counters.LEASES_LOST) == {("shots",): 2}


def test_what_comes_in_vain_is_counted_with_its_reason(database: Engine) -> None:
    run_id = factories.create_job(database).runs[0].id
    queues.set_queue_mode(database, "shots", "paused")
    assert factories.claim_run(database, run_id) is None
    queues.set_queue_mode(database, "shots", "open")
    claim = factories.claim_run(database, run_id)
    assert claim is not None
    assert [factories.claim_run(database, which) for which in (run_id, run_id, "run_none")] == [None] * 3
    assert runs.fail_run(database, claim, OutOfMemory("full").to_problem(), retry=True, backoff_s=60)
    assert factories.claim_run(database, run_id) is None
    with database.begin() as connection:
        connection.execute(text("UPDATE runs SET available_at = now()"))
    again = factories.claim_run(database, run_id)
    assert again is not None
    finish(database, again)
    assert factories.claim_run(database, run_id) is None
    told = {("shots", reason): times for reason, times in {"paused": 1, "running": 2, "early": 1, "ended": 1}.items()}
    assert counted(database, counters.MESSAGES_DROPPED) == told | {("", "gone"): 1}
    assert {reason for _, reason in counted(database, counters.MESSAGES_DROPPED)} <= set(counters.DROP_REASONS)


def test_results_that_come_too_late_are_dropped_and_counted_and_an_echo_is_not(database: Engine) -> None:
    run_id = factories.create_job(database).runs[0].id
    slow = factories.claim_run(database, run_id)
    lose(database)
    quick = factories.claim_run(database, run_id, owner="worker-2")
    assert finish(database, slow) is None
    assert finish(database, quick) == ()
    assert finish(database, quick) == ()  # its answer was lost: no other result
    assert finish(database, slow) is None
    assert counted(database, counters.RESULTS_DROPPED) == {("shots",): 2}


# Rows -----------------------------------------------------------------------------------------------------------------


def test_the_figures_of_the_rows(database: Engine) -> None:
    factories.create_job(database, priority="high")
    queued = [factories.create_job(database) for _ in range(2)]
    with database.begin() as connection:
        aged = "UPDATE runs SET created_at = now() - interval '1 minute' WHERE id = :id"
        connection.execute(text(aged), {"id": queued[0].runs[0].id})
    for seconds in (10.0, 20.0):
        finish(
            database, factories.claim_run(database, factories.create_job(database).runs[0].id),
            Stage("encode", "done", 300, 300, "frame", seconds), Stage("plan", "done", 0, 0, "step", 0.0),
        )  # fmt: skip
    failing = factories.claim_run(database, factories.create_job(database).runs[0].id)
    assert failing is not None
    runs.fail_run(database, failing, MediaCorrupt("broken").to_problem(), retry=False, backoff_s=0)
    told = metrics.read_metrics(database)
    assert told.depths == {("shots", "high"): 1, ("shots", "normal"): 2}
    assert told.oldest_s["shots", "normal"] == pytest.approx(60, abs=5)
    states = {("shots", "queued", ""): 3, ("shots", "done", ""): 2, ("shots", "failed", "media_corrupt"): 1}
    assert told.runs == states
    assert told.per_second == {("shots", "encode", "frame"): pytest.approx(20)}
    assert told.jobs == {"queued": 3, "succeeded": 2, "failed": 1}


def test_the_statement_and_the_function_agree_on_jobs(database: Engine) -> None:
    """Every pair of states of two runs, let go of or not."""
    known = [factories.create_job(database) for _ in range(2)]
    ids = [job.runs[0].id for job in known]
    cases = [(RunState.RUNNING, True), *((state, False) for state in RunState)]
    for (one, other), let_go in product(product(cases, repeat=2), (False, True)):
        with database.begin() as connection:
            stand = "UPDATE runs SET state = :state, cancel_requested = :cancel WHERE id = :id"
            for run_id, (state, cancel) in zip(ids, (one, other), strict=True):
                connection.execute(text(stand), {"state": state.value, "cancel": cancel, "id": run_id})
            connection.execute(text("DELETE FROM job_runs"))
            link = "INSERT INTO job_runs (job_id, run_id, position, asked, reused) VALUES (:job, :run, 0, true, false)"
            for run_id in ids:
                connection.execute(text(link), {"job": known[0].id, "run": run_id})
            gone = "UPDATE jobs SET cancelled_at = CASE WHEN :gone AND id = :job THEN now() END"
            connection.execute(text(gone), {"gone": let_go, "job": known[0].id})
            told = connection.execute(metrics.JOB_COUNTS).all()
        state = derive_job_state([one, other], let_go)
        # the other job has no runs: nothing of it is undone
        expected = Counter([state.value, derive_job_state([], cancelled=False).value])
        assert {row.state: row.jobs for row in told} == dict(expected), (one, other, let_go)
        rest = frozenset(JobState) - {state}
        listed = [
            {job.id for job in jobs.list_jobs(database, limit=9, job_filter=JobFilter(which))}
            for which in (frozenset({state}), rest)
        ]
        assert [known[0].id in found for found in listed] == [True, False], (one, other, let_go)


# What batches came to -------------------------------------------------------------------------------------------------


def ended(engine: Engine, films: int = 3, failed: int = 1) -> Batch:
    batch = made(engine, films)
    wakes = feed(engine, batch)
    end(engine, wakes[failed:])
    end(engine, wakes[:failed], failed=True)
    return batch


def outcomes(engine: Engine) -> list[bool]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT outcome IS NOT NULL FROM batches ORDER BY created_at")).scalars())


def test_what_a_batch_came_to_is_written_down_and_says_the_same(database: Engine) -> None:
    batch = ended(database)
    feed(database, made(database, 2))
    before = batches.get_batch(database, batch.id)
    assert batches.freeze_outcomes(database) == [batch.id]
    assert outcomes(database) == [True, False]
    assert batches.get_batch(database, batch.id) == before
    assert before.state is BatchState.FAILED
    assert batches.freeze_outcomes(database) == []
    assert metrics.read_metrics(database).batches == {"failed": 1, "running": 1}


def test_a_cancelled_batch_is_settled_once_its_work_has_stopped(database: Engine) -> None:
    batch = made(database, 3, cap=1)
    (wake,) = feed(database, batch)
    claim = factories.claim_run(database, wake.run_id)
    assert claim is not None
    batches.cancel_batch(database, batch.id)
    assert batches.freeze_outcomes(database) == []
    runs.acknowledge_cancel(database, claim)
    assert batches.freeze_outcomes(database) == [batch.id]
    told = batches.get_batch(database, batch.id)
    assert (told.state, dict(told.counts)) == (BatchState.CANCELLED, {"cancelled": 1, "waiting": 2})


@pytest.mark.parametrize("how", ["batch", "job", "delete", "film"])
def test_what_changes_an_ended_batch_lets_it_be_counted_again(how: str, database: Engine) -> None:
    batch = ended(database)
    batches.freeze_outcomes(database)
    item = next(one for one in batches.list_items(database, batch.id, limit=9) if one.state == "failed")
    assert item.job_id is not None
    match how:
        case "batch":
            batches.retry_batch(database, batch.id)
        case "job":
            jobs.retry_job(database, item.job_id, 3)
        case "delete":
            jobs.delete_job(database, item.job_id)
        case "film":
            videos.delete_video(database, item.video_id)
    told = batches.get_batch(database, batch.id)
    again = {"batch": {"waiting": 1}, "job": {"queued": 1}, "delete": {"forgotten": 1}, "film": {}}[how]
    assert dict(told.counts) == {"succeeded": 2} | again


def test_a_refused_film_that_is_tried_again_counts_as_any_other(database: Engine) -> None:
    batch = made(database, 1)
    change = "UPDATE batches SET work = jsonb_set(work, '{analyses,0,params}', CAST(:params AS jsonb))"
    with database.begin() as connection:
        connection.execute(text(change), {"params": '{"x": 1}'})
    assert feed(database, batch) == []
    assert batches.freeze_outcomes(database) == [batch.id]
    with database.begin() as connection:
        connection.execute(text(change), {"params": "{}"})
    batches.retry_batch(database, batch.id)
    assert batches.get_batch(database, batch.id).counts == {"waiting": 1}
    end(database, feed(database, batch, NOW))
    assert batches.get_batch(database, batch.id).state is BatchState.SUCCEEDED


def test_nobody_counts_while_a_job_is_tried_again(database: Engine) -> None:
    """Nor the other way round: whoever comes second sees what the first has done."""
    batch = ended(database)
    item = next(one for one in batches.list_items(database, batch.id, limit=9) if one.state == "failed")
    lock = text("SELECT 1 FROM batches FOR UPDATE")
    with database.begin() as connection:
        connection.execute(lock)  # as a retry does first
        assert batches.freeze_outcomes(database) == []
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as connection:
            connection.execute(lock)  # as beat does first
            retried = pool.submit(jobs.retry_job, database, item.job_id or "", 3)
            wait_until("the retry waits", lambda: lock_is_awaited(database))
            assert not retried.done()
            connection.execute(text("UPDATE batches SET outcome = CAST(:told AS jsonb)"), {"told": '{"videos": []}'})
        retried.result(10)
    assert outcomes(database) == [False]
    assert batches.get_batch(database, batch.id).state is BatchState.RUNNING
