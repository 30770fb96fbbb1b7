"""Every setting, read once from the environment: prefix `SCENEWORKS_`, documented in the README (a test compares).

The two servers may also be given by their customary names `DATABASE_URL` and `REDIS_URL`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import InvalidRequest

RENAMED_SETTINGS = {"SCENEWORKS_ARCHIVE_ROOTS": "SCENEWORKS_SOURCE_ROOTS"}
"""Old name -> new name."""


class Settings(BaseSettings):
    """One field a setting; the description is what the README says."""

    model_config = SettingsConfigDict(env_prefix="SCENEWORKS_", frozen=True, populate_by_name=True)

    database_url: str = Field(
        "postgresql://postgres@127.0.0.1:5432/sceneworks",
        validation_alias=AliasChoices("SCENEWORKS_DATABASE_URL", "DATABASE_URL"),
        description="Postgres 15 or newer, with pgvector 0.8 or newer.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("SCENEWORKS_REDIS_URL", "REDIS_URL"),
        description="Valkey or Redis 6.2 or newer.",
    )
    data_dir: Path = Field(Path("var/files"), description="Folder of videos and artifacts, shared by API and workers.")
    weights_dir: Path = Field(Path("var/weights"), description="Folder of weights files.")
    source_roots: str = Field(
        "",
        description="Folders under which sources may lie, separated by a colon; empty: none. API and workers see them.",
    )
    settle_s: float = Field(
        10, ge=0, description="A file of a source that was changed so lately is left for the next scan."
    )
    log_level: str = Field("info", description="debug, info, warning or error.")

    host: str = Field("127.0.0.1", description="Address the API listens on; anything but loopback needs API keys.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API.")
    api_keys: str = Field(
        "", description="SHA-256 (hex) of each API key, comma separated; empty = open, on loopback only."
    )
    max_upload_bytes: int = Field(64 * 2**30, ge=1, description="Largest video taken, in bytes.")
    max_video_s: float = Field(12 * 3600, gt=0, description="Longest video taken, in seconds.")
    min_free_bytes: int = Field(2**29, ge=0, description="Refuse uploads that would leave less free disk than this.")
    probe_timeout_s: float = Field(120, gt=0, description="Longest time for probing an upload.")
    max_queued_runs: int = Field(100_000, ge=1, description="Refuse new jobs (503) beyond this many unfinished runs.")

    models: str = Field("*", description="Models a worker serves, comma separated; * for all. One name pins one model.")
    resident: int = Field(1, ge=1, description="Models a worker of several keeps in memory.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; a GPU asked for and absent is a refusal.")
    precision: str = Field("auto", description="auto (bf16 where the hardware has it), bf16 or fp32.")
    runtime: str = Field("torch", description="torch, or openvino on a CPU where the extra is installed.")
    threads: int = Field(0, ge=0, description="Threads of a worker's networks and decoder; 0 = the cores it may use.")

    lease_s: float = Field(30, gt=0, description="A run whose worker is silent for this long goes back to the queue.")
    touch_s: float = Field(1, gt=0, description="How often a worker reports progress and looks for a cancel.")
    max_attempts: int = Field(3, ge=1, description="Attempts of a run before it is set aside.")
    retry_backoff_s: float = Field(5, ge=0, description="Pause before a retry; doubles with each attempt.")
    cancel_grace_s: float = Field(10, gt=0, description="After this a worker that ignores a cancel is killed.")
    stall_s: float = Field(900, gt=0, description="A run without any progress for this long is killed.")
    run_deadline_s: float = Field(86_400, gt=0, description="Longest time one attempt may take.")
    sweep_s: float = Field(2, gt=0, description="How often beat sweeps the ledger.")
    resend_s: float = Field(10, gt=0, description="A queued run that no message speaks of is sent again after this.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_names(cls, values: Any) -> Any:
        """InvalidRequest for a setting by its old name: ignored, it would look like a service that lost its sources."""
        environment = {name.upper() for name in os.environ}
        for old_name, new_name in RENAMED_SETTINGS.items():
            if old_name in environment:
                raise InvalidRequest(f"{old_name} is called {new_name} now: set that instead, and remove the old name.")
        return values


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process."""
    return Settings()
