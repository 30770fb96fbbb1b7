"""The ledger's verbs on a real Postgres: each promise of shared/README.md, and each way to break it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from shared.errors import Conflict, IdempotencyMismatch, NotFound, OutOfMemory
from shared.store import results, workers
from shared.store.jobs import jobs
from shared.store.jobs.jobs import JobFilter, NewJob
from shared.store.runs import runs, sweep
from shared.store.runs.runs import Claim
from shared.store.videos import videos
from shared.values import Artifact, JobState, Progress, RunState, Stage, WakeUp, new_id
from tests.support import factories


def _execute(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def _expire(engine: Engine, run_id: str) -> None:
    _execute(engine, "UPDATE runs SET lease_until = now() - interval '1 s' WHERE id = :id", id=run_id)


def _claimed(engine: Engine, **request: object) -> Claim:
    job = factories.create_job(engine, **request)
    claim = factories.claim_run(engine, job.runs[0].id)
    assert claim is not None
    return claim


def _finish(engine: Engine, claim: Claim, **changed: object) -> tuple[WakeUp, ...] | None:
    parts: dict[str, object] = {
        "progress": Progress((Stage("encode", "done", 240, 240, "frame", 1.0),), 1.0),
        "decode_failures": 0,
        "results": factories.make_shots((0, 100), (100, 240)),
        "artifacts": [],
    }
    return runs.finish_run(engine, claim, **parts | changed)  # type: ignore[arg-type]


def test_a_job_is_there_before_anyone_is_told(database: Engine) -> None:
    created = jobs.create_job(database, NewJob(factories.add_video(database).id, (factories.make_analysis(),)))
    assert jobs.get_job(database, created.job.id).state is JobState.QUEUED
    assert created.wakeups == (WakeUp(created.job.runs[0].id, "shots", 1),)


def test_a_job_on_no_video_leaves_nothing(database: Engine) -> None:
    with pytest.raises(NotFound):
        factories.create_job(database, "vid_none")
    assert jobs.list_jobs(database, limit=10) == []


def test_the_same_key_is_the_same_job(database: Engine) -> None:
    video = factories.add_video(database)
    request = NewJob(video.id, (factories.make_analysis(),), idempotency_key="k", request_sha256="a")
    first, second = jobs.create_job(database, request), jobs.create_job(database, request)
    assert (first.job.id, first.replayed) == (second.job.id, False)
    assert second.replayed
    assert second.wakeups == ()
    with pytest.raises(IdempotencyMismatch):
        jobs.create_job(
            database, NewJob(video.id, (factories.make_analysis(),), idempotency_key="k", request_sha256="b")
        )


def test_a_twin_is_shared_and_said(database: Engine) -> None:
    video = factories.add_video(database)
    first = factories.create_job(database, video.id)
    second = jobs.create_job(database, NewJob(video.id, (factories.make_analysis(),)))
    assert second.job.runs[0].id == first.runs[0].id
    assert second.job.runs[0].reused
    assert second.wakeups == ()
    other = factories.create_job(database, video.id, analyses=(factories.make_analysis(detector="hsv_luv"),))
    assert other.runs[0].id != first.runs[0].id


def test_a_more_urgent_job_hurries_the_run_it_shares(database: Engine) -> None:
    video = factories.add_video(database)
    factories.create_job(database, video.id, priority="low")
    urgent = jobs.create_job(database, NewJob(video.id, (factories.make_analysis(),), priority="high"))
    assert urgent.wakeups == (WakeUp(urgent.job.runs[0].id, "shots", 2),)


def test_a_run_is_claimed_once(database: Engine) -> None:
    claim = _claimed(database)
    assert (claim.attempt, claim.fence) == (1, 1)
    assert claim.params == factories.make_analysis().params.model_dump(mode="json")
    assert factories.claim_run(database, claim.run_id, "worker-2") is None


def test_finish_writes_results_once_and_says_so_twice(database: Engine) -> None:
    claim = _claimed(database)
    artifact = Artifact(new_id("art"), "keyframes", "keyframes.zip", "application/zip", "0" * 64, 5)
    assert _finish(database, claim, artifacts=[artifact]) == ()
    assert _finish(database, claim, artifacts=[artifact]) == ()  # the answer was lost: asked again
    job = jobs.list_jobs(database, limit=1)[0]
    assert job.state is JobState.SUCCEEDED
    assert job.fraction == 1.0
    found = results.list_results(database, job.id, limit=10)
    assert [(row.result.seq, row.result.range.end.frame) for row in found if row.result.range] == [(0, 100), (1, 240)]
    assert [item.name for _, _, item in results.list_artifacts(database, job.id)] == ["keyframes.zip"]


def test_a_zombie_is_fenced_off_from_every_effect(database: Engine) -> None:
    zombie = _claimed(database)
    _expire(database, zombie.run_id)
    heir = factories.claim_run(database, zombie.run_id, "worker-2")
    assert heir is not None
    assert heir.fence == zombie.fence + 1
    assert runs.touch_run(database, zombie, Progress(), 30) is None
    assert _finish(database, zombie) is None
    assert not runs.fail_run(database, zombie, {"code": "internal"}, retry=False, backoff_s=0)
    assert runs.acknowledge_cancel(database, zombie) is None
    assert runs.requeue_run(database, zombie) is None
    assert _finish(database, heir) == ()


def test_progress_never_goes_back(database: Engine) -> None:
    claim = _claimed(database)
    runs.touch_run(database, claim, Progress((Stage("encode", "running", 50, 100),), 0.5), 30)
    runs.touch_run(database, claim, Progress((Stage("encode", "running", 10, 100),), 0.1), 30)
    assert jobs.list_jobs(database, limit=1)[0].runs[0].fraction == 0.5


def test_a_lost_worker_costs_an_attempt_and_the_last_one_sets_the_run_aside(database: Engine) -> None:
    job = factories.create_job(database, max_attempts=2)
    run_id = job.runs[0].id
    for attempt in (1, 2):
        claim = factories.claim_run(database, run_id)
        assert claim is not None
        assert claim.attempt == attempt
        _expire(database, run_id)
        [freed] = sweep.free_expired_runs(database)
        assert freed.attempt == attempt
    job = jobs.get_job(database, job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "poison_run"


def test_the_worlds_faults_are_tried_again_later(database: Engine) -> None:
    claim = _claimed(database)
    assert runs.fail_run(database, claim, OutOfMemory().to_problem(), retry=True, backoff_s=60)
    assert factories.claim_run(database, claim.run_id) is None  # not yet
    assert sweep.take_runs_to_send(database, {}, {}, 0) == []
    _execute(database, "UPDATE runs SET available_at = now()")
    assert [wake.run_id for wake in sweep.take_runs_to_send(database, {}, {}, 0)] == [claim.run_id]
    again = factories.claim_run(database, claim.run_id)
    assert again is not None
    assert runs.fail_run(database, again, OutOfMemory().to_problem(), retry=False, backoff_s=60)
    assert jobs.list_jobs(database, limit=1)[0].state is JobState.FAILED


def test_cancel_of_a_queued_job_is_at_once(database: Engine) -> None:
    job = factories.create_job(database)
    assert jobs.cancel_job(database, job.id).state is JobState.CANCELLED
    assert jobs.cancel_job(database, job.id).state is JobState.CANCELLED
    assert factories.claim_run(database, job.runs[0].id) is None


def test_cancel_of_a_running_job_is_reported_once_it_has_stopped(database: Engine) -> None:
    claim = _claimed(database)
    job = jobs.list_jobs(database, limit=1)[0]
    assert jobs.cancel_job(database, job.id).state is JobState.CANCELLING
    touched = runs.touch_run(database, claim, Progress(), 30)
    assert touched is not None
    assert touched.cancel
    assert runs.acknowledge_cancel(database, claim) is RunState.CANCELLED
    assert jobs.get_job(database, job.id).state is JobState.CANCELLED


def test_cancel_of_an_ended_job_is_a_conflict(database: Engine) -> None:
    claim = _claimed(database)
    _finish(database, claim)
    with pytest.raises(Conflict):
        jobs.cancel_job(database, jobs.list_jobs(database, limit=1)[0].id)


def test_a_shared_run_stops_when_the_last_job_lets_go(database: Engine) -> None:
    video = factories.add_video(database)
    first, second = (factories.create_job(database, video.id) for _ in range(2))
    claim = factories.claim_run(database, first.runs[0].id)
    assert claim is not None
    assert jobs.cancel_job(database, first.id).state is JobState.CANCELLED
    touched = runs.touch_run(database, claim, Progress(), 30)
    assert touched is not None
    assert not touched.cancel
    assert jobs.cancel_job(database, second.id).state is JobState.CANCELLING


def test_a_run_wanted_again_before_it_stopped_goes_back_to_the_queue(database: Engine) -> None:
    video = factories.add_video(database)
    first = factories.create_job(database, video.id)
    claim = factories.claim_run(database, first.runs[0].id)
    assert claim is not None
    jobs.cancel_job(database, first.id)
    second = factories.create_job(database, video.id)
    assert second.runs[0].id == first.runs[0].id
    assert runs.acknowledge_cancel(database, claim) is RunState.QUEUED
    again = factories.claim_run(database, claim.run_id)
    assert again is not None
    assert again.attempt == 1


def test_a_cancelled_run_whose_worker_died_ends_cancelled(database: Engine) -> None:
    claim = _claimed(database)
    job = jobs.list_jobs(database, limit=1)[0]
    jobs.cancel_job(database, job.id)
    _expire(database, claim.run_id)
    assert factories.claim_run(database, claim.run_id, "worker-2") is None
    assert [freed.state for freed in sweep.free_expired_runs(database)] == [RunState.CANCELLED]
    assert jobs.get_job(database, job.id).state is JobState.CANCELLED


def test_a_run_handed_back_has_lost_no_attempt(database: Engine) -> None:
    claim = _claimed(database)
    workers.announce_worker(database, claim.owner, state="busy", reason=None, models=[], device="cpu", precision="fp32")
    workers.request_stop(database, claim.owner)
    touched = runs.touch_run(database, claim, Progress(), 30)
    assert touched is not None
    assert touched.stopping
    assert runs.requeue_run(database, claim) == WakeUp(claim.run_id, "shots", 1)
    again = factories.claim_run(database, claim.run_id)
    assert again is not None
    assert again.attempt == 1


def test_retry_plans_only_what_did_not_end_well(database: Engine) -> None:
    analyses = (factories.make_analysis(), factories.make_analysis(detector="hsv_luv"))
    job = factories.create_job(database, analyses=analyses)
    good, bad = (factories.claim_run(database, run.id) for run in job.runs)
    assert good is not None
    assert bad is not None
    _finish(database, good)
    runs.fail_run(database, bad, {"code": "internal"}, retry=False, backoff_s=0)
    assert jobs.get_job(database, job.id).state is JobState.FAILED
    again, wakes = jobs.retry_job(database, job.id, 3)
    assert again.state is JobState.RUNNING
    assert [run.state for run in again.runs] == [RunState.DONE, RunState.QUEUED]
    assert [wake.run_id for wake in wakes] == [again.runs[1].id]
    assert again.runs[1].id != bad.run_id
    with pytest.raises(Conflict):
        jobs.retry_job(database, job.id, 3)


def test_delete_while_running_stops_the_run_and_leaves_nothing(database: Engine) -> None:
    claim = _claimed(database)
    job = jobs.list_jobs(database, limit=1)[0]
    jobs.delete_job(database, job.id)
    with pytest.raises(NotFound):
        jobs.get_job(database, job.id)
    touched = runs.touch_run(database, claim, Progress(), 30)
    assert touched is not None
    assert touched.cancel
    assert runs.acknowledge_cancel(database, claim) is RunState.CANCELLED
    sweep.delete_stale_rows(database)
    videos.delete_video(database, claim.video.id)
    with pytest.raises(NotFound):
        videos.get_video(database, claim.video.id)


def test_delete_keeps_a_run_that_another_job_refers_to(database: Engine) -> None:
    video = factories.add_video(database)
    first, second = (factories.create_job(database, video.id) for _ in range(2))
    claim = factories.claim_run(database, first.runs[0].id)
    assert claim is not None
    _finish(database, claim)
    jobs.delete_job(database, first.id)
    assert len(results.list_results(database, second.id, limit=10)) == 2
    jobs.delete_job(database, second.id)
    with database.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM runs")).scalar_one() == 0


def test_a_video_with_live_work_is_not_deleted(database: Engine) -> None:
    job = factories.create_job(database)
    with pytest.raises(Conflict):
        videos.delete_video(database, job.video_id)


def test_the_sweep_sends_what_was_never_sent_and_what_the_broker_lost(database: Engine) -> None:
    job = factories.create_job(database)
    run_id = job.runs[0].id
    expected = sweep.count_expected_messages(database)
    assert expected == {"shots": 1}
    assert sweep.take_runs_to_send(database, {"shots": 0}, expected, resend_s=60) == []  # sent a moment ago
    _execute(database, "UPDATE runs SET dispatched_at = now() - interval '2 min'")
    assert sweep.take_runs_to_send(database, {"shots": 1}, expected, resend_s=60) == []  # its message still waits
    assert sweep.take_runs_to_send(database, {"shots": 0}, expected, resend_s=60) == [WakeUp(run_id, "shots", 1)]
    _execute(database, "UPDATE runs SET dispatched_at = NULL")
    assert sweep.take_runs_to_send(database, {}, {}, resend_s=60) == [WakeUp(run_id, "shots", 1)]


def test_jobs_are_listed_newest_first_in_pages(database: Engine) -> None:
    video = factories.add_video(database)
    made = [factories.create_job(database, video.id, labels={"n": str(n % 2)}).id for n in range(5)]
    first = jobs.list_jobs(database, limit=2)
    rest = jobs.list_jobs(database, limit=10, after=(first[-1].created_at, first[-1].id))
    assert [job.id for job in [*first, *rest]] == made[::-1]
    assert [job.id for job in jobs.list_jobs(database, limit=9, job_filter=JobFilter(labels={"n": "1"}))] == [
        made[3],
        made[1],
    ]


def test_a_list_by_state_is_full(database: Engine) -> None:
    made = [factories.create_job(database).id for _ in range(7)]
    for job_id in made[::3]:
        jobs.cancel_job(database, job_id)
    wanted = JobFilter(states=frozenset({JobState.CANCELLED}))
    assert [job.id for job in jobs.list_jobs(database, limit=2, job_filter=wanted)] == [made[6], made[3]]
    assert len(jobs.list_jobs(database, limit=9, job_filter=wanted)) == 3


def test_a_worker_that_falls_silent_is_not_live(database: Engine) -> None:
    offer = {"model": "shots", "weights": None, "error": None}
    workers.announce_worker(database, "w", state="ready", reason=None, models=[offer], device="cpu", precision="bf16")
    [worker] = workers.list_workers(database)
    assert worker.serves_model("shots")
    _execute(database, "UPDATE workers SET heartbeat_at = now() - interval '1 min'")
    assert not workers.list_workers(database)[0].live
    workers.record_heartbeat(database, "w", state="busy", run_id="run_x")
    assert workers.list_workers(database)[0].state == "busy"
    workers.delete_worker(database, "w")
    assert workers.list_workers(database) == []


def test_files_that_nothing_speaks_of_are_found(database: Engine) -> None:
    video = factories.add_video(database)
    assert sweep.find_unreferenced(database, [video.sha256, "f" * 64]) == ["f" * 64]
