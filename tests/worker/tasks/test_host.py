"""The model host on a real database: what it announces, which weights it uses, which models stay loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from shared.catalog import CATALOG
from shared.errors import WeightsMissing
from shared.settings import Settings
from shared.store import workers
from shared.values import Worker
from tests.support.waiting import wait_until
from worker.tasks import host as host_module
from worker.tasks.host import ModelHost


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    return Settings(models="shots", device="cpu", data_dir=tmp_path / "files", weights_dir=tmp_path / "weights")


@contextmanager
def serve(config: Settings, database: Engine) -> Iterator[ModelHost]:
    """A host that has announced itself."""
    host = ModelHost(config, database)
    host.start_serving()
    try:
        yield host
    finally:
        host.stop_presence()


def get_worker(database: Engine) -> Worker:
    (worker,) = workers.list_workers(database)
    return worker


def test_it_announces_its_models_and_their_weights(config: Settings, database: Engine) -> None:
    with serve(config, database) as host:
        worker = get_worker(database)
        assert (worker.id, worker.state, worker.device) == (host.id, "ready", "cpu")
        (offer,) = worker.models
        assert (offer["model"], offer["error"]) == ("shots", None)
        assert offer["weights"] == host.resolve_weights("shots", None)


def test_a_run_planned_with_other_weights_is_refused(config: Settings, database: Engine) -> None:
    with serve(config, database) as host:
        loaded = host.resolve_weights("shots", None)
        assert host.resolve_weights("shots", loaded) == loaded
        with pytest.raises(WeightsMissing, match="replaced"):
            host.resolve_weights("shots", "0" * 64)
    assert host.resolve_weights("bassl", "1" * 64) == "1" * 64  # this host has not loaded them: the plan decides


def test_a_worker_without_weights_stays_visible_and_says_why(config: Settings, database: Engine) -> None:
    with serve(config.model_copy(update={"models": "bassl"}), database) as host:
        worker = get_worker(database)
        assert worker.state == "setup_failed"
        assert "sceneworks-worker weights pull bassl" in (worker.reason or "")
        assert host.setup_failure is not None


def test_repaired_weights_are_offered_without_a_restart(
    config: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "PRESENCE_INTERVAL_S", 0.05)
    spec = CATALOG["shots"].weights
    assert spec is not None
    damaged = config.weights_dir / spec.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"x" * spec.size)
    with serve(config, database):
        assert get_worker(database).models[0]["error"]["code"] == "weights_corrupt"
        damaged.unlink()  # the file in the installed package is used again
        wait_until("the model is offered", lambda: get_worker(database).models[0]["error"] is None, 120)
        assert get_worker(database).state == "ready"


def test_the_least_recently_used_model_is_dropped(config: Settings, database: Engine) -> None:
    host = ModelHost(config.model_copy(update={"models": "*", "resident": 2}), database)
    shots, bassl = host.get_model("shots"), host.get_model("bassl")
    assert host.get_model("shots") is shots
    host.get_model("scrl")
    assert host.get_model("shots") is shots
    assert host.get_model("bassl") is not bassl
