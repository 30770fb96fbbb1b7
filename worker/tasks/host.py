"""What a pool child is: a placement, the models it serves, and its announcement in the ledger."""

from __future__ import annotations

import os
import socket
import threading
from collections import OrderedDict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.catalog import CATALOG, parse_model_names
from shared.db import get_engine
from shared.errors import Internal, SceneworksError, WeightsCorrupt, WeightsMissing
from shared.log import get_logger
from shared.settings import Settings, get_settings
from shared.storage import ContentStorage
from shared.store import workers
from worker.models import load_definition
from worker.models.contract import LoadedModel
from worker.runtime.placement import Placement, resolve_placement
from worker.weights import compute_fingerprint

log = get_logger(__name__)
PRESENCE_INTERVAL_S = 5
MISSING_WEIGHTS_CODES = {WeightsMissing.code, WeightsCorrupt.code}
"""What an import can mend."""
WORKER_ID_ENV = "_SCENEWORKS_WORKER_ID"
"""Environment variable by which the pool's parent names the worker to its children."""


def worker_id() -> str:
    """The worker's name: that of the pool's parent."""
    return os.environ.get(WORKER_ID_ENV) or f"{socket.gethostname()}-{os.getpid()}"


class ModelHost:
    """One process that serves models. One name on its list pins the model; of several, the last few used stay."""

    def __init__(self, config: Settings, bind: Engine) -> None:
        self.config, self.engine = config, bind
        self.id = worker_id()
        self.storage = ContentStorage(config.data_dir)
        self.placement: Placement = resolve_placement(config.device, config.precision, config.runtime, config.threads)
        self.version = version("sceneworks")
        self.setup_failure: SceneworksError | None = None
        self._model_names = parse_model_names(config.models)
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._fingerprints: dict[str, str] = {}
        self._offers: list[dict[str, Any]] = []
        self._current_run_id: str | None = None
        torch.set_num_threads(self.placement.threads)

    def start_serving(self) -> None:
        """Say who we are, load what is pinned, say whether it went well. Never raises: a worker stays visible."""
        self._announce_worker("starting", [])
        self._offers = [self._build_offer(name) for name in self._model_names]
        self._publish_setup_state()
        threading.Thread(target=self._presence_loop, name="presence", daemon=True).start()

    def _publish_setup_state(self) -> None:
        """Say what became of the models offered."""
        self.setup_failure = self._setup_error(self._offers)
        reason = self.setup_failure.detail if self.setup_failure else None
        self._announce_worker("setup_failed" if self.setup_failure else "ready", self._offers, reason)

    def _retry_missing_weights(self) -> None:
        """Weights that were imported while the worker runs are served without a restart."""
        missing = [offer for offer in self._offers if (offer["error"] or {}).get("code") in MISSING_WEIGHTS_CODES]
        rebuilt = {
            offer["model"]: self._build_offer(offer["model"]) for offer in missing if self._has_weights(offer["model"])
        }
        if rebuilt:
            self._offers = [rebuilt.get(offer["model"], offer) for offer in self._offers]
            self._publish_setup_state()

    def _has_weights(self, name: str) -> bool:
        """Whether the weights are there now, whole."""
        spec = CATALOG[name].weights
        try:
            return spec is not None and bool(compute_fingerprint(spec, self._folders))
        except SceneworksError:
            return False

    def _build_offer(self, name: str) -> dict[str, Any]:
        """What the ledger says of one model: its weights and what is wrong with it."""
        spec = CATALOG[name]
        error: SceneworksError | None = None
        weights: str | None = None
        try:
            load_definition(name)
            if spec.weights:
                weights = self._fingerprints[name] = compute_fingerprint(spec.weights, self._folders)
                self._preload_model(name)
        except SceneworksError as fault:
            error = fault
        except Exception:
            log.exception("model.broken", model=name)
            error = Internal(f"The model {name} cannot be loaded; the worker's log says why.")
        return {"model": name, "weights": None if error else weights, "error": error.to_problem() if error else None}

    def _preload_model(self, name: str) -> None:
        if len(self._model_names) == 1:
            self.get_model(name).get_network(CATALOG[name].example_params())

    def _setup_error(self, offers: list[dict[str, Any]]) -> SceneworksError | None:
        """A worker has failed when none of its models can do anything."""
        broken = [offer for offer in offers if offer["error"] and not CATALOG[offer["model"]].weightless_when]
        if offers and len(broken) == len(offers):
            return Internal(str(broken[0]["error"]["detail"]))
        return None

    def _announce_worker(self, state: str, models: list[dict[str, Any]], reason: str | None = None) -> None:
        workers.announce_worker(
            self.engine,
            self.id,
            state=state,
            reason=reason,
            models=models,
            device=self.placement.device,
            precision=self.placement.precision,
        )
        log.info("worker.announced", worker=self.id, state=state, device=self.placement.device, reason=reason)

    def _presence_loop(self) -> None:
        never_set = threading.Event()
        while not never_set.wait(PRESENCE_INTERVAL_S):
            state = "setup_failed" if self.setup_failure else "busy" if self._current_run_id else "ready"
            try:
                self._retry_missing_weights()
                workers.record_heartbeat(self.engine, self.id, state=state, run_id=self._current_run_id)
            except SQLAlchemyError as error:
                log.warning("worker.unheard", worker=self.id, reason=type(error).__name__)

    def set_current_run(self, run_id: str | None) -> None:
        """Which run the worker is on, for those who watch."""
        self._current_run_id = run_id

    def resolve_weights(self, name: str, planned: str | None) -> str | None:
        """Fingerprint of the weights that a run of this model is computed with.

        Raises:
            WeightsMissing: the run was planned with other weights, which have been replaced since.
        """
        loaded = self._fingerprints.get(name)
        if planned and loaded and planned != loaded:
            raise WeightsMissing("The weights were replaced after the job was planned: retry it to use the new ones.")
        return planned or loaded

    def get_model(self, name: str) -> LoadedModel:
        """A model in memory; the one used longest ago makes room."""
        if name not in self._models:
            while len(self._models) >= self.config.resident:
                self._models.popitem(last=False)
            self._models[name] = LoadedModel(load_definition(name), self.placement, self._folders)
        self._models.move_to_end(name)
        return self._models[name]

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self.config.weights_dir,)


@lru_cache(maxsize=1)
def get_host() -> ModelHost:
    """The host of this process."""
    return ModelHost(get_settings(), get_engine())
