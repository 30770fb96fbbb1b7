"""The rooms: one folder a model, the same file names in each."""

from __future__ import annotations

from importlib import import_module

from shared.catalog import get_model_spec
from worker.models.contract import ModelDefinition


def load_definition(name: str) -> ModelDefinition:
    """The room of a model on the menu; InvalidRequest (`unknown_model`) for any other name."""
    spec = get_model_spec(name)
    definition: ModelDefinition = import_module(f"worker.models.{spec.name}.stages").MODEL
    return definition
