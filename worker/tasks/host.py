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

from shared.catalog import MENU, served
from shared.db import engine
from shared.errors import Internal, SceneworksError, WeightsCorrupt, WeightsMissing
from shared.files import Files
from shared.log import logger
from shared.settings import Settings, settings
from shared.store import workers
from worker.encoders.published import fingerprint
from worker.models import load
from worker.models.contract import Model
from worker.models.placement import Placement, place

log = logger(__name__)
PRESENCE_S = 5
LACKING = {WeightsMissing.code, WeightsCorrupt.code}
"""What an import can mend."""
WORKER_ID = "_SCENEWORKS_WORKER_ID"
"""Environment variable by which the pool's parent names the worker to its children."""


def worker_id() -> str:
    """The worker's name: that of the pool's parent."""
    return os.environ.get(WORKER_ID) or f"{socket.gethostname()}-{os.getpid()}"


class Host:
    """One process that serves models. One name on its list pins the model; of several, the last few used stay."""

    def __init__(self, config: Settings, bind: Engine) -> None:
        self.config, self.engine = config, bind
        self.id = worker_id()
        self.files = Files(config.data_dir)
        self.placement: Placement = place(config.device, config.precision, config.runtime, config.threads)
        self.version = version("sceneworks")
        self.failed: SceneworksError | None = None
        self._names = served(config.models)
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._fingerprints: dict[str, str] = {}
        self._offers: list[dict[str, Any]] = []
        self._run_id: str | None = None
        torch.set_num_threads(self.placement.threads)

    def setup(self) -> None:
        """Say who we are, load what is pinned, say whether it went well. Never raises: a worker stays visible."""
        self._announce("starting", [])
        self._offers = [self._offer(name) for name in self._names]
        self._judge()
        threading.Thread(target=self._present, name="presence", daemon=True).start()

    def _judge(self) -> None:
        """Say what became of the models offered."""
        self.failed = self._setup_error(self._offers)
        reason = self.failed.detail if self.failed else None
        self._announce("setup_failed" if self.failed else "ready", self._offers, reason)

    def _look_again(self) -> None:
        """Weights that were imported while the worker runs are served without a restart."""
        lacking = [offer for offer in self._offers if (offer["error"] or {}).get("code") in LACKING]
        again = {offer["model"]: self._offer(offer["model"]) for offer in lacking if self._has(offer["model"])}
        if again:
            self._offers = [again.get(offer["model"], offer) for offer in self._offers]
            self._judge()

    def _has(self, name: str) -> bool:
        """Whether the weights are there now, whole."""
        spec = MENU[name].weights
        try:
            return spec is not None and bool(fingerprint(spec, self._folders))
        except SceneworksError:
            return False

    def _offer(self, name: str) -> dict[str, Any]:
        """What the ledger says of one model: its weights and what is wrong with it."""
        spec = MENU[name]
        error: SceneworksError | None = None
        weights: str | None = None
        try:
            load(name)
            if spec.weights:
                weights = self._fingerprints[name] = fingerprint(spec.weights, self._folders)
                self._preload(name)
        except SceneworksError as fault:
            error = fault
        except Exception:
            log.exception("model.broken", model=name)
            error = Internal(f"The model {name} cannot be loaded; the worker's log says why.")
        return {"model": name, "weights": None if error else weights, "error": error.problem() if error else None}

    def _preload(self, name: str) -> None:
        if len(self._names) == 1:
            self.model(name).network(MENU[name].sample())

    def _setup_error(self, offers: list[dict[str, Any]]) -> SceneworksError | None:
        """A worker has failed when none of its models can do anything."""
        broken = [offer for offer in offers if offer["error"] and not MENU[offer["model"]].weightless]
        if offers and len(broken) == len(offers):
            return Internal(str(broken[0]["error"]["detail"]))
        return None

    def _announce(self, state: str, models: list[dict[str, Any]], reason: str | None = None) -> None:
        workers.announce(
            self.engine,
            self.id,
            state=state,
            reason=reason,
            models=models,
            device=self.placement.device,
            precision=self.placement.precision,
        )
        log.info("worker.announced", worker=self.id, state=state, device=self.placement.device, reason=reason)

    def _present(self) -> None:
        gone = threading.Event()
        while not gone.wait(PRESENCE_S):
            state = "setup_failed" if self.failed else "busy" if self._run_id else "ready"
            try:
                self._look_again()
                workers.beat(self.engine, self.id, state=state, run_id=self._run_id)
            except SQLAlchemyError as error:
                log.warning("worker.unheard", worker=self.id, reason=type(error).__name__)

    def occupy(self, run_id: str | None) -> None:
        """Which run the worker is on, for those who watch."""
        self._run_id = run_id

    def weights(self, name: str, wanted: str | None) -> str | None:
        """Fingerprint of the weights that a run of this model is computed with.

        Raises:
            WeightsMissing: the run was planned with other weights, which have been replaced since.
        """
        here = self._fingerprints.get(name)
        if wanted and here and wanted != here:
            raise WeightsMissing("The weights were replaced after the job was planned: retry it to use the new ones.")
        return wanted or here

    def model(self, name: str) -> Model:
        """A model in memory; the one used longest ago makes room."""
        if name not in self._models:
            while len(self._models) >= self.config.resident:
                self._models.popitem(last=False)
            self._models[name] = Model(load(name), self.placement, self._folders)
        self._models.move_to_end(name)
        return self._models[name]

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self.config.weights_dir,)


@lru_cache(maxsize=1)
def host() -> Host:
    """The host of this process."""
    return Host(settings(), engine())
