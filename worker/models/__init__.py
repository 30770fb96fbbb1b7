"""The rooms: one folder a model, the same file names in each."""

from __future__ import annotations

from importlib import import_module

from shared.catalog import model
from worker.models.contract import Room


def load(name: str) -> Room:
    """The room of a model on the menu; InvalidRequest (`unknown_model`) for any other name."""
    spec = model(name)
    room: Room = import_module(f"worker.models.{spec.name}.stages").ROOM
    return room
