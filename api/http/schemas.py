"""Bases of request bodies, queries and records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A JSON body: closed, and without conversions between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query parameters: closed; numbers are read from text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Record(BaseModel):
    """A JSON answer: closed, so that the OpenAPI document cannot fall behind."""

    model_config = ConfigDict(extra="forbid", frozen=True)
