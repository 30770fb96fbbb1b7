"""What an entry of the catalog is: parameters, weights, needs, and what a model yields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import FieldError, InvalidRequest


class Params(BaseModel):
    """Parameters of one model: closed, frozen, with a default for each but what only the caller can know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def canonical_json(self, exclude: tuple[str, ...] = ()) -> str:
        """The one spelling under which equal parameters are equal: sorted JSON, defaults filled in, some left out."""
        return json.dumps(self.model_dump(mode="json", exclude=set(exclude)), sort_keys=True, separators=(",", ":"))


class PreciseParams(Params):
    """Parameters of models that can compute in more than one arithmetic."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of the network on frames. auto: bf16 where the worker's hardware has it. "
        "fp32: the published numbers.",
    )


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """A pinned weights file.

    Args:
        name: file name in the weights folder.
        sha256: its hash; also the fingerprint in the key of a run. None for weights that every operator imports: their
            fingerprint is what the workers announce.
        size: bytes; None likewise.
        licence: SPDX id.
        origin: where it comes from.
        how: the command that gets it.
    """

    name: str
    sha256: str | None
    size: int | None
    licence: str
    origin: str
    how: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the catalog.

    Args:
        name: of the model, its queue and its package under `worker/models`.
        title, summary, paper: for people.
        params: class of its parameters.
        needs: models whose runs must be done first.
        results: kinds of result it yields.
        artifacts: kinds of file it yields.
        weights: its weights; None where it has none.
        weightless_when: values of parameters with which it runs without weights, as {parameter: value}.
        postprocess_params: parameters that change nothing in `encode`: a run that differs in these alone reuses the
            stored output of a finished run.
        optional_when: values of parameters with which it needs no other model, as {parameter: value}.
        example: values for parameters that have no default: for tests, for trying it out, and for the documentation.
    """

    name: str
    title: str
    summary: str
    paper: str
    params: type[Params]
    needs: tuple[str, ...]
    results: tuple[str, ...]
    artifacts: tuple[str, ...]
    weights: WeightsSpec | None
    weightless_when: tuple[tuple[str, Any], ...] = ()
    postprocess_params: tuple[str, ...] = ()
    optional_when: tuple[tuple[str, Any], ...] = ()
    example: tuple[tuple[str, Any], ...] = ()

    def weights_for(self, params: Params) -> WeightsSpec | None:
        """The weights that a run with these parameters loads."""
        return None if _matches_any(params, self.weightless_when) else self.weights

    def needs_for(self, params: Params) -> tuple[str, ...]:
        """The models whose runs must be done before a run with these parameters."""
        return () if _matches_any(params, self.optional_when) else self.needs

    def example_params(self) -> Params:
        """Parameters that can be run: the defaults, and an example where there is none."""
        return self.params.model_validate(dict(self.example))

    def read_params(self, raw: dict[str, Any], pointer: str = "/params") -> Params:
        """Parameters from a request; InvalidRequest names each fault by JSON pointer."""
        try:
            return self.params.model_validate(raw)
        except ValidationError as error:
            raise InvalidRequest(
                f"Parameters of {self.name} are not valid.", errors=tuple(_field_errors(error, pointer))
            ) from None


def _matches_any(params: Params, values: tuple[tuple[str, Any], ...]) -> bool:
    return any(getattr(params, name) == value for name, value in values)


def _field_errors(error: ValidationError, pointer: str) -> Iterable[FieldError]:
    for fault in error.errors(include_url=False, include_context=False):
        path = "".join(f"/{part}" for part in fault["loc"])
        code = "unknown_parameter" if fault["type"] == "extra_forbidden" else fault["type"]
        yield FieldError(pointer + path, code, fault["msg"])
