"""The ledger's verbs on a real Postgres: each promise of shared/README.md, and each way to break it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from shared.errors import Conflict, IdempotencyMismatch, NotFound, OutOfMemory
from shared.store import jobs, results, runs, sweep, videos, workers
from shared.store.jobs import Filter, NewJob
from shared.store.runs import Claim
from shared.values import Artifact, JobState, Progress, RunState, Stage, Wake, new_id
from tests import factories


def _execute(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def _expire(engine: Engine, run_id: str) -> None:
    _execute(engine, "UPDATE runs SET lease_until = now() - interval '1 s' WHERE id = :id", id=run_id)


def _claimed(engine: Engine, **request: object) -> Claim:
    job = factories.job(engine, **request)
    claim = factories.claim(engine, job.runs[0].id)
    assert claim is not None
    return claim


def _finish(engine: Engine, claim: Claim, **changed: object) -> tuple[Wake, ...] | None:
    parts: dict[str, object] = {
        "progress": Progress((Stage("encode", "done", 240, 240, "frame", 1.0),), 1.0),
        "decode_failures": 0,
        "results": factories.shots((0, 100), (100, 240)),
        "artifacts": [],
    }
    return runs.finish(engine, claim, **parts | changed)  # type: ignore[arg-type]


def test_a_job_is_there_before_anyone_is_told(database: Engine) -> None:
    created = jobs.create(database, NewJob(factories.stored(database).id, (factories.analysis(),)))
    assert jobs.get(database, created.job.id).state is JobState.QUEUED
    assert created.wakes == (Wake(created.job.runs[0].id, "shots", 1),)


def test_a_job_on_no_video_leaves_nothing(database: Engine) -> None:
    with pytest.raises(NotFound):
        factories.job(database, "vid_none")
    assert jobs.page(database, limit=10) == []


def test_the_same_key_is_the_same_job(database: Engine) -> None:
    video = factories.stored(database)
    request = NewJob(video.id, (factories.analysis(),), idempotency_key="k", request_sha256="a")
    first, second = jobs.create(database, request), jobs.create(database, request)
    assert (first.job.id, first.replayed) == (second.job.id, False)
    assert second.replayed
    assert second.wakes == ()
    with pytest.raises(IdempotencyMismatch):
        jobs.create(database, NewJob(video.id, (factories.analysis(),), idempotency_key="k", request_sha256="b"))


def test_a_twin_is_shared_and_said(database: Engine) -> None:
    video = factories.stored(database)
    first = factories.job(database, video.id)
    second = jobs.create(database, NewJob(video.id, (factories.analysis(),)))
    assert second.job.runs[0].id == first.runs[0].id
    assert second.job.runs[0].reused
    assert second.wakes == ()
    other = factories.job(database, video.id, analyses=(factories.analysis(detector="hsv_luv"),))
    assert other.runs[0].id != first.runs[0].id


def test_a_more_urgent_job_hurries_the_run_it_shares(database: Engine) -> None:
    video = factories.stored(database)
    factories.job(database, video.id, priority="low")
    urgent = jobs.create(database, NewJob(video.id, (factories.analysis(),), priority="high"))
    assert urgent.wakes == (Wake(urgent.job.runs[0].id, "shots", 2),)


def test_a_run_is_claimed_once(database: Engine) -> None:
    claim = _claimed(database)
    assert (claim.attempt, claim.fence) == (1, 1)
    assert claim.params == factories.analysis().params.model_dump(mode="json")
    assert factories.claim(database, claim.run_id, "worker-2") is None


def test_finish_writes_results_once_and_says_so_twice(database: Engine) -> None:
    claim = _claimed(database)
    artifact = Artifact(new_id("art"), "keyframes", "keyframes.zip", "application/zip", "0" * 64, 5)
    assert _finish(database, claim, artifacts=[artifact]) == ()
    assert _finish(database, claim, artifacts=[artifact]) == ()  # the answer was lost: asked again
    job = jobs.page(database, limit=1)[0]
    assert job.state is JobState.SUCCEEDED
    assert job.fraction == 1.0
    found = results.page(database, job.id, limit=10)
    assert [(row.result.seq, row.result.range.end.frame) for row in found if row.result.range] == [(0, 100), (1, 240)]
    assert [item.name for _, _, item in results.artifacts(database, job.id)] == ["keyframes.zip"]


def test_a_zombie_is_fenced_off_from_every_effect(database: Engine) -> None:
    zombie = _claimed(database)
    _expire(database, zombie.run_id)
    heir = factories.claim(database, zombie.run_id, "worker-2")
    assert heir is not None
    assert heir.fence == zombie.fence + 1
    assert runs.touch(database, zombie, Progress(), 30) is None
    assert _finish(database, zombie) is None
    assert not runs.fail(database, zombie, {"code": "internal"}, retry=False, backoff_s=0)
    assert runs.stopped(database, zombie) is None
    assert runs.hand_back(database, zombie) is None
    assert _finish(database, heir) == ()


def test_progress_never_goes_back(database: Engine) -> None:
    claim = _claimed(database)
    runs.touch(database, claim, Progress((Stage("encode", "running", 50, 100),), 0.5), 30)
    runs.touch(database, claim, Progress((Stage("encode", "running", 10, 100),), 0.1), 30)
    assert jobs.page(database, limit=1)[0].runs[0].fraction == 0.5


def test_a_lost_worker_costs_an_attempt_and_the_last_one_sets_the_run_aside(database: Engine) -> None:
    job = factories.job(database, max_attempts=2)
    run_id = job.runs[0].id
    for attempt in (1, 2):
        claim = factories.claim(database, run_id)
        assert claim is not None
        assert claim.attempt == attempt
        _expire(database, run_id)
        [freed] = sweep.free(database)
        assert freed.attempt == attempt
    job = jobs.get(database, job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "poison_run"


def test_the_worlds_faults_are_tried_again_later(database: Engine) -> None:
    claim = _claimed(database)
    assert runs.fail(database, claim, OutOfMemory().problem(), retry=True, backoff_s=60)
    assert factories.claim(database, claim.run_id) is None  # not yet
    assert sweep.due(database, {}, {}, 0) == []
    _execute(database, "UPDATE runs SET available_at = now()")
    assert [wake.run_id for wake in sweep.due(database, {}, {}, 0)] == [claim.run_id]
    again = factories.claim(database, claim.run_id)
    assert again is not None
    assert runs.fail(database, again, OutOfMemory().problem(), retry=False, backoff_s=60)
    assert jobs.page(database, limit=1)[0].state is JobState.FAILED


def test_cancel_of_a_queued_job_is_at_once(database: Engine) -> None:
    job = factories.job(database)
    assert jobs.cancel(database, job.id).state is JobState.CANCELLED
    assert jobs.cancel(database, job.id).state is JobState.CANCELLED
    assert factories.claim(database, job.runs[0].id) is None


def test_cancel_of_a_running_job_is_reported_once_it_has_stopped(database: Engine) -> None:
    claim = _claimed(database)
    job = jobs.page(database, limit=1)[0]
    assert jobs.cancel(database, job.id).state is JobState.CANCELLING
    touched = runs.touch(database, claim, Progress(), 30)
    assert touched is not None
    assert touched.cancel
    assert runs.stopped(database, claim) is RunState.CANCELLED
    assert jobs.get(database, job.id).state is JobState.CANCELLED


def test_cancel_of_an_ended_job_is_a_conflict(database: Engine) -> None:
    claim = _claimed(database)
    _finish(database, claim)
    with pytest.raises(Conflict):
        jobs.cancel(database, jobs.page(database, limit=1)[0].id)


def test_a_shared_run_stops_when_the_last_job_lets_go(database: Engine) -> None:
    video = factories.stored(database)
    first, second = (factories.job(database, video.id) for _ in range(2))
    claim = factories.claim(database, first.runs[0].id)
    assert claim is not None
    assert jobs.cancel(database, first.id).state is JobState.CANCELLED
    touched = runs.touch(database, claim, Progress(), 30)
    assert touched is not None
    assert not touched.cancel
    assert jobs.cancel(database, second.id).state is JobState.CANCELLING


def test_a_run_wanted_again_before_it_stopped_goes_back_to_the_queue(database: Engine) -> None:
    video = factories.stored(database)
    first = factories.job(database, video.id)
    claim = factories.claim(database, first.runs[0].id)
    assert claim is not None
    jobs.cancel(database, first.id)
    second = factories.job(database, video.id)
    assert second.runs[0].id == first.runs[0].id
    assert runs.stopped(database, claim) is RunState.QUEUED
    again = factories.claim(database, claim.run_id)
    assert again is not None
    assert again.attempt == 1


def test_a_cancelled_run_whose_worker_died_ends_cancelled(database: Engine) -> None:
    claim = _claimed(database)
    job = jobs.page(database, limit=1)[0]
    jobs.cancel(database, job.id)
    _expire(database, claim.run_id)
    assert factories.claim(database, claim.run_id, "worker-2") is None
    assert [freed.state for freed in sweep.free(database)] == [RunState.CANCELLED]
    assert jobs.get(database, job.id).state is JobState.CANCELLED


def test_a_run_handed_back_has_lost_no_attempt(database: Engine) -> None:
    claim = _claimed(database)
    workers.announce(database, claim.owner, state="busy", reason=None, models=[], device="cpu", precision="fp32")
    workers.stop(database, claim.owner)
    touched = runs.touch(database, claim, Progress(), 30)
    assert touched is not None
    assert touched.stopping
    assert runs.hand_back(database, claim) == Wake(claim.run_id, "shots", 1)
    again = factories.claim(database, claim.run_id)
    assert again is not None
    assert again.attempt == 1


def test_retry_plans_only_what_did_not_end_well(database: Engine) -> None:
    analyses = (factories.analysis(), factories.analysis(detector="hsv_luv"))
    job = factories.job(database, analyses=analyses)
    good, bad = (factories.claim(database, run.id) for run in job.runs)
    assert good is not None
    assert bad is not None
    _finish(database, good)
    runs.fail(database, bad, {"code": "internal"}, retry=False, backoff_s=0)
    assert jobs.get(database, job.id).state is JobState.FAILED
    again, wakes = jobs.retry(database, job.id, 3)
    assert again.state is JobState.RUNNING
    assert [run.state for run in again.runs] == [RunState.DONE, RunState.QUEUED]
    assert [wake.run_id for wake in wakes] == [again.runs[1].id]
    assert again.runs[1].id != bad.run_id
    with pytest.raises(Conflict):
        jobs.retry(database, job.id, 3)


def test_delete_while_running_stops_the_run_and_leaves_nothing(database: Engine) -> None:
    claim = _claimed(database)
    job = jobs.page(database, limit=1)[0]
    jobs.delete(database, job.id)
    with pytest.raises(NotFound):
        jobs.get(database, job.id)
    touched = runs.touch(database, claim, Progress(), 30)
    assert touched is not None
    assert touched.cancel
    assert runs.stopped(database, claim) is RunState.CANCELLED
    sweep.tidy(database)
    videos.delete(database, claim.video.id)
    with pytest.raises(NotFound):
        videos.get(database, claim.video.id)


def test_delete_keeps_a_run_that_another_job_refers_to(database: Engine) -> None:
    video = factories.stored(database)
    first, second = (factories.job(database, video.id) for _ in range(2))
    claim = factories.claim(database, first.runs[0].id)
    assert claim is not None
    _finish(database, claim)
    jobs.delete(database, first.id)
    assert len(results.page(database, second.id, limit=10)) == 2
    jobs.delete(database, second.id)
    with database.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM runs")).scalar_one() == 0


def test_a_video_with_live_work_is_not_deleted(database: Engine) -> None:
    job = factories.job(database)
    with pytest.raises(Conflict):
        videos.delete(database, job.video_id)


def test_the_sweep_sends_what_was_never_sent_and_what_the_broker_lost(database: Engine) -> None:
    job = factories.job(database)
    run_id = job.runs[0].id
    expected = sweep.queued(database)
    assert expected == {"shots": 1}
    assert sweep.due(database, {"shots": 0}, expected, resend_s=60) == []  # sent a moment ago
    _execute(database, "UPDATE runs SET dispatched_at = now() - interval '2 min'")
    assert sweep.due(database, {"shots": 1}, expected, resend_s=60) == []  # its message still waits
    assert sweep.due(database, {"shots": 0}, expected, resend_s=60) == [Wake(run_id, "shots", 1)]
    _execute(database, "UPDATE runs SET dispatched_at = NULL")
    assert sweep.due(database, {}, {}, resend_s=60) == [Wake(run_id, "shots", 1)]


def test_jobs_are_listed_newest_first_in_pages(database: Engine) -> None:
    video = factories.stored(database)
    made = [factories.job(database, video.id, labels={"n": str(n % 2)}).id for n in range(5)]
    first = jobs.page(database, limit=2)
    rest = jobs.page(database, limit=10, after=(first[-1].created_at, first[-1].id))
    assert [job.id for job in [*first, *rest]] == made[::-1]
    assert [job.id for job in jobs.page(database, limit=9, wanted=Filter(labels={"n": "1"}))] == [made[3], made[1]]


def test_a_list_by_state_is_full(database: Engine) -> None:
    made = [factories.job(database).id for _ in range(7)]
    for job_id in made[::3]:
        jobs.cancel(database, job_id)
    wanted = Filter(states=frozenset({JobState.CANCELLED}))
    assert [job.id for job in jobs.page(database, limit=2, wanted=wanted)] == [made[6], made[3]]
    assert len(jobs.page(database, limit=9, wanted=wanted)) == 3


def test_a_worker_that_falls_silent_is_not_live(database: Engine) -> None:
    offer = {"model": "shots", "weights": None, "error": None}
    workers.announce(database, "w", state="ready", reason=None, models=[offer], device="cpu", precision="bf16")
    [worker] = workers.all(database)
    assert worker.serves("shots")
    _execute(database, "UPDATE workers SET heartbeat_at = now() - interval '1 min'")
    assert not workers.all(database)[0].live
    workers.beat(database, "w", state="busy", run_id="run_x")
    assert workers.all(database)[0].state == "busy"
    workers.forget(database, "w")
    assert workers.all(database) == []


def test_files_that_nothing_speaks_of_are_found(database: Engine) -> None:
    video = factories.stored(database)
    assert sweep.unreferenced(database, [video.sha256, "f" * 64]) == ["f" * 64]
