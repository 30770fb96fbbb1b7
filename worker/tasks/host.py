"""The model host: what a pool child holds (device, loaded models) and announces in the database."""

from __future__ import annotations

import threading
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from cachetools import LRUCache
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
from worker.tasks.identity import get_worker_id
from worker.weights import compute_fingerprint

log = get_logger(__name__)
PRESENCE_INTERVAL_S = 5
MISSING_WEIGHTS_CODES = {WeightsMissing.code, WeightsCorrupt.code}
"""Error codes of a model that importing its weights can repair."""


class ModelHost:
    """Serves models in one process. A single model stays loaded; of several, the most recently used stay loaded."""

    def __init__(self, config: Settings, bind: Engine) -> None:
        self.config, self.engine = config, bind
        self.id = get_worker_id()
        self.storage = ContentStorage(config.data_dir)
        self.placement: Placement = resolve_placement(config.device, config.precision, config.runtime, config.threads)
        self.version = version("sceneworks")
        # Kept and not raised: a worker that exits would be restarted endlessly, and nobody would see the reason.
        self.setup_failure: SceneworksError | None = None
        self._model_names = parse_model_names(config.models)
        self._models: LRUCache[str, LoadedModel] = LRUCache(config.resident)
        self._fingerprints: dict[str, str] = {}
        self._offers: list[dict[str, Any]] = []
        self._current_run_id: str | None = None
        self._stopped = threading.Event()
        torch.set_num_threads(self.placement.threads)

    def start_serving(self) -> None:
        """Announce the worker, load a single model, announce the result.

        A model that cannot be loaded does not raise: the worker stays visible and says why.
        """
        self._announce_worker("starting", [])
        self._offers = [self._build_offer(name) for name in self._model_names]
        self._publish_setup_state()
        threading.Thread(target=self._presence_loop, name="presence", daemon=True).start()

    def stop_presence(self) -> None:
        """Stop the presence messages; a pool child simply ends, a process that lives on has to call this."""
        self._stopped.set()

    def _publish_setup_state(self) -> None:
        """Announce which models can be served."""
        self.setup_failure = self._setup_error(self._offers)
        reason = self.setup_failure.detail if self.setup_failure else None
        self._announce_worker("setup_failed" if self.setup_failure else "ready", self._offers, reason)

    def _retry_missing_weights(self) -> None:
        """Offer models whose weights were imported meanwhile: no restart is needed."""
        missing = [offer for offer in self._offers if (offer["error"] or {}).get("code") in MISSING_WEIGHTS_CODES]
        rebuilt = {
            offer["model"]: self._build_offer(offer["model"]) for offer in missing if self._has_weights(offer["model"])
        }
        if rebuilt:
            self._offers = [rebuilt.get(offer["model"], offer) for offer in self._offers]
            self._publish_setup_state()

    def _has_weights(self, name: str) -> bool:
        """Whether the weights are present and intact now."""
        spec = CATALOG[name].weights
        try:
            return spec is not None and bool(compute_fingerprint(spec, self._folders))
        except SceneworksError:
            return False

    def _build_offer(self, name: str) -> dict[str, Any]:
        """Build the announcement of one model: the fingerprint of its weights, or the error that prevents serving."""
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
        except Exception:  # loading runs code of the model: a bug in one model must not take the others down
            log.exception("model.broken", model=name)
            error = Internal(f"The model {name} cannot be loaded; the worker's log says why.")
        return {"model": name, "weights": None if error else weights, "error": error.to_problem() if error else None}

    def _preload_model(self, name: str) -> None:
        """Load the network of a single model before the first run, so that a fault shows at the start."""
        if len(self._model_names) == 1:
            self.get_model(name).get_network(CATALOG[name].example_params())

    def _setup_error(self, offers: list[dict[str, Any]]) -> SceneworksError | None:
        """Return an error if none of the models can serve any run."""
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
        """Record every few seconds that the worker is alive, and look for weights that were missing."""
        while not self._stopped.wait(PRESENCE_INTERVAL_S):
            state = "setup_failed" if self.setup_failure else "busy" if self._current_run_id else "ready"
            try:
                self._retry_missing_weights()
                workers.record_heartbeat(self.engine, self.id, state=state, run_id=self._current_run_id)
            except SQLAlchemyError as error:
                log.warning("worker.heartbeat_failed", worker=self.id, reason=type(error).__name__)

    def set_current_run(self, run_id: str | None) -> None:
        """Set the run that the next presence messages name; None when idle."""
        self._current_run_id = run_id

    def resolve_weights(self, name: str, planned: str | None) -> str | None:
        """Return the fingerprint of the weights that a run of this model uses.

        Args:
            name: the model.
            planned: fingerprint in the run's row; None if no worker had announced one when the job was created.

        Raises:
            WeightsMissing: the run was planned with other weights, which have been replaced since.
        """
        # The fingerprint is part of the key under which results are reused: computing the run with other weights would
        # store their results under the wrong key.
        loaded = self._fingerprints.get(name)
        if planned and loaded and planned != loaded:
            raise WeightsMissing("The weights were replaced after the job was planned: retry it to use the new ones.")
        return planned or loaded

    def get_model(self, name: str) -> LoadedModel:
        """Return a model; the least recently used one is dropped if there are too many.

        Its network is loaded by its first run, so the dropped network is freed before the new one takes memory.
        """
        if name not in self._models:
            self._models[name] = LoadedModel(load_definition(name), self.placement, self._folders)
        return self._models[name]

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self.config.weights_dir,)


@lru_cache(maxsize=1)
def get_host() -> ModelHost:
    """Return the host of this process."""
    return ModelHost(get_settings(), get_engine())
