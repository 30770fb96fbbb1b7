"""Schedules on a real Postgres with a clock that the test moves: each slot once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from shared.errors import Conflict, NotFound
from shared.store.batches import batches, schedules
from shared.store.batches.schedules import NewSchedule, SettledSlot
from shared.values.batches import CatchUpPolicy, Selection, Workload
from shared.values.schedules import Schedule
from shared.values.timetable import Timetable
from tests.support import factories

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
SHOTS = Workload(analyses=(("shots", factories.make_analysis().params.model_dump(mode="json")),), selection=Selection())


def made(engine: Engine, cron: str | None = "30 2 * * *", every_s: int | None = None, catch_up: CatchUpPolicy = "once",
         name: str = "nightly") -> Schedule:  # fmt: skip
    table = Timetable(cron, every_s, "Europe/Berlin", START)
    return schedules.create_schedule(engine, NewSchedule(name, table, SHOTS, catch_up), START)


def tick(engine: Engine, now: datetime) -> list[SettledSlot]:
    return [
        slot for one in schedules.list_due_schedules(engine, now) for slot in schedules.fire_schedule(engine, one, now)
    ]


def test_over_the_change_of_clocks_each_day_fires_once(database: Engine) -> None:
    factories.add_video(database)
    made(database)
    fired = []
    for minutes in range(0, 3 * 24 * 60, 10):
        fired += tick(database, START + timedelta(minutes=minutes))
    assert [slot.due_at for slot in fired] == [
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC),
        datetime(2026, 3, 30, 0, 30, tzinfo=UTC),
        datetime(2026, 3, 31, 0, 30, tzinfo=UTC),
    ]
    assert {slot.videos for slot in fired} == {1}


@pytest.mark.parametrize(
    ("catch_up", "fires"), [("skip", []), ("once", [24]), ("all", list(range(1, 25)))], ids=["skip", "once", "all"]
)
def test_a_day_without_beat(catch_up: CatchUpPolicy, fires: list[int], database: Engine) -> None:
    factories.add_video(database)
    schedule = made(database, cron=None, every_s=3600, catch_up=catch_up)
    slots = tick(database, START + timedelta(hours=24, minutes=10))
    assert [(slot.due_at - START) // timedelta(hours=1) for slot in slots if slot.batch_id] == fires
    assert len(slots) == 24
    assert all(slot.reason for slot in slots if not slot.batch_id)
    told = schedules.get_schedule(database, schedule.id)
    assert told.next_at == START + timedelta(hours=25)
    assert [slot.outcome for slot in told.last_slots] == ["fired" if 24 - n in fires else "skipped" for n in range(10)]
    [next_slot] = tick(database, START + timedelta(hours=25, seconds=1))
    assert next_slot.batch_id


def test_two_beats_for_an_hour(database: Engine) -> None:
    factories.add_video(database)
    schedule = made(database, cron=None, every_s=60)

    fired: list[SettledSlot] = []
    with ThreadPoolExecutor(2) as beats:
        for second in range(0, 3601, 20):
            now = START + timedelta(seconds=second)
            fired += [slot for slots in beats.map(lambda _, now=now: tick(database, now), range(2)) for slot in slots]
    assert sorted(slot.due_at for slot in fired) == [START + timedelta(minutes=n) for n in range(1, 61)]
    assert len({slot.batch_id for slot in fired}) == 60
    assert len(batches.list_batches(database, limit=100, schedule_id=schedule.id)) == 60


def test_a_clock_that_was_set_back_fires_nothing_twice(database: Engine) -> None:
    factories.add_video(database)
    schedule = made(database, cron=None, every_s=3600)
    assert len(tick(database, START + timedelta(hours=2))) == 2
    edited = NewSchedule(schedule.name, schedule.timetable, SHOTS)
    schedules.update_schedule(database, schedule.id, edited, START)  # next_at is in the past again
    assert [slot.due_at for slot in tick(database, START + timedelta(hours=3))] == [START + timedelta(hours=3)]


def test_paused_and_resumed(database: Engine) -> None:
    factories.add_video(database)
    schedule = made(database, cron=None, every_s=3600)
    assert schedules.pause_schedule(database, schedule.id).to_dict()["next_at"] is None
    assert tick(database, START + timedelta(hours=5)) == []
    resumed = schedules.resume_schedule(database, schedule.id, START + timedelta(hours=5, minutes=1))
    assert resumed.next_at == START + timedelta(hours=6)
    assert tick(database, START + timedelta(hours=5, minutes=2)) == []


def test_run_now_is_beside_the_timetable(database: Engine) -> None:
    schedule = made(database)
    with pytest.raises(Conflict, match="nothing to do"):
        schedules.run_schedule_now(database, schedule.id, START)
    factories.add_video(database)
    batch = schedules.run_schedule_now(database, schedule.id, START)
    assert (batch.schedule_id, batch.videos) == (schedule.id, 1)
    assert schedules.get_schedule(database, schedule.id).next_at == schedule.next_at


def test_a_schedule_of_a_model_that_is_gone_says_so_and_goes_on(database: Engine) -> None:
    factories.add_video(database)
    work = Workload(analyses=(("shots", {"detector": "crystal ball"}),))
    table = Timetable(None, 3600, "UTC", START)
    schedule = schedules.create_schedule(database, NewSchedule("odd", table, work), START)
    [slot] = tick(database, START + timedelta(hours=1))
    assert slot.batch_id is None
    assert "not valid" in (slot.reason or "")
    told = schedules.get_schedule(database, schedule.id)
    assert (told.last_slots[0].outcome, told.next_at) == ("skipped", START + timedelta(hours=2))


def test_edited_listed_and_forgotten(database: Engine) -> None:
    first, second = made(database), made(database, name="weekly", cron="0 3 * * 0")
    with pytest.raises(Conflict, match="of that name"):
        made(database)
    table = Timetable("0 5 * * *", None, "Asia/Tokyo", START)
    changed = schedules.update_schedule(database, first.id, NewSchedule("early", table, SHOTS, "skip"), START)
    assert (changed.name, changed.timetable, changed.catch_up) == ("early", table, "skip")
    assert changed.next_at == datetime(2026, 3, 28, 20, tzinfo=UTC)
    assert {one.id for one in schedules.list_schedules(database, limit=10)} == {first.id, second.id}
    schedules.delete_schedule(database, first.id)
    with pytest.raises(NotFound):
        schedules.get_schedule(database, first.id)
