"""The models: one folder each, with the same file names in every folder."""

from __future__ import annotations

from importlib import import_module

from shared.catalog import get_model_spec
from worker.models.contract import AnyModelDefinition


def load_definition(name: str) -> AnyModelDefinition:
    """Import the definition of a model of the catalog; InvalidRequest (`unknown_model`) for any other name.

    Imported on demand: a worker serves one or two models, and must not pay for the imports of all.
    """
    spec = get_model_spec(name)
    definition: AnyModelDefinition = import_module(f"worker.models.{spec.name}.stages").MODEL
    return definition
