"""The rows of jobs and runs.

    videos ──< jobs ──< job_runs >── runs ──< results
      └──────────────────────────────┘ ├──< artifacts
    workers                            ├──< embeddings
                                       └──< needs >── runs
    counters

A job has no state column: its state follows from its runs (`shared.values.derive_job_state`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Label,
    MetaData,
    String,
    UniqueConstraint,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.values import RunState

INDEXED_DIMENSIONS = 2048
"""Vectors of this length have an HNSW index; others are compared one by one."""
COSINE_KEY: Label[Any] = literal_column(f"(l2_normalize(vector)::halfvec({INDEXED_DIMENSIONS}))").label("cosine_key")
"""What the HNSW indexes hold: 16 bits a number, since an index takes up to 4,000 of those and 2,000 of 32 bits.
Normalised first: no cosine depends on the length, and 16 bits have a small range."""
LIVE_OR_DONE = "state IN ('waiting', 'queued', 'running', 'done')"
UNFINISHED = "state IN ('waiting', 'queued', 'running')"
ENDED = "state IN ('done', 'failed', 'cancelled', 'skipped')"
_STATES = ", ".join(f"'{state.value}'" for state in RunState)


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),  # nothing is NULL, and not the JSON `null`
        list[dict[str, Any]]: JSONB,
    }


class JobRow(Base):
    """One request: a video and the models asked for."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("key_scope", "idempotency_key"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_labels", "labels", postgresql_using="gin"),
        # Few are: who asks for the state of many jobs need not read each of them for it.
        Index("ix_jobs_cancelled", "id", postgresql_where=text("cancelled_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    video_id: Mapped[str] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"), index=True)
    priority: Mapped[int]
    external_id: Mapped[str | None]
    labels: Mapped[dict[str, Any]]
    key_scope: Mapped[str]
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str] = mapped_column(String(64))
    cancelled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RunRow(Base):
    """One model on one video with one set of parameters: the truth about the work."""

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint("waits >= 0", name="waits"),
        # One live or finished run a key: a twin is shared, never repeated.
        Index("uq_runs_key", "key", unique=True, postgresql_where=text(LIVE_OR_DONE)),
        Index("ix_runs_encode_key", "encode_key", postgresql_where=text("state = 'done'")),
        # How the queues stand, from the index alone, however long the history is and however wide its rows.
        Index(
            "ix_runs_live",
            "state",
            "model",
            "priority",
            "created_at",
            postgresql_include=["dispatched_at"],
            postgresql_where=text(UNFINISHED),
        ),
        # What ended lately, and how many ended how.
        Index("ix_runs_ended", "finished_at", postgresql_include=["model", "state"], postgresql_where=text(ENDED)),
        Index("ix_runs_running", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_runs_failed", "model", "updated_at", postgresql_where=text("state = 'failed'")),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    video_id: Mapped[str] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"), index=True)
    model: Mapped[str]
    params: Mapped[dict[str, Any]]
    weights: Mapped[str | None] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(64))
    encode_key: Mapped[str] = mapped_column(String(64))
    state: Mapped[str]
    priority: Mapped[int]
    waits: Mapped[int] = mapped_column(server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int]
    fence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    owner: Mapped[str | None]
    device: Mapped[str | None]
    precision: Mapped[str | None]
    version: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    dispatched_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    stages: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    fraction: Mapped[float] = mapped_column(server_default="0")
    eta_s: Mapped[float | None]
    decode_failures: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobRunRow(Base):
    """A job refers to its runs; several jobs may share one."""

    __tablename__ = "job_runs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, index=True)
    position: Mapped[int]
    asked: Mapped[bool]
    reused: Mapped[bool]
    released: Mapped[bool] = mapped_column(server_default=text("false"))


class NeedRow(Base):
    """`run_id` starts after `needs_run_id` is done."""

    __tablename__ = "needs"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    needs_run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, index=True)


class ResultRow(Base):
    """What a run found, one row each; a new model needs no migration."""

    __tablename__ = "results"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    start_frame: Mapped[int | None] = mapped_column(BigInteger)
    start_pts: Mapped[int | None] = mapped_column(BigInteger)
    end_frame: Mapped[int | None] = mapped_column(BigInteger)
    end_pts: Mapped[int | None] = mapped_column(BigInteger)
    score: Mapped[float | None]
    data: Mapped[dict[str, Any]]


def _build_hnsw_index(per: str) -> Index:
    """One graph for videos and one for shots: of shots there are many more, and a search looks for one of the two."""
    return Index(
        f"ix_embeddings_{per}_cosine",
        COSINE_KEY,
        postgresql_using="hnsw",
        postgresql_ops={"cosine_key": "halfvec_cosine_ops"},
        postgresql_where=text(f"per = '{per}' AND dimensions = {INDEXED_DIMENSIONS}"),
    )


class EmbeddingRow(Base):
    """A vector to search by: of a whole video, or of one shot. `model` and `weights` say what it may be compared with.

    What the run says as well stands here again, so that a search reads this table alone.
    """

    __tablename__ = "embeddings"
    __table_args__ = (
        CheckConstraint("per IN ('video', 'shot')", name="per"),
        CheckConstraint("(per = 'shot') = (start_frame IS NOT NULL)", name="range"),
        CheckConstraint("vector_dims(vector) = dimensions", name="dimensions"),
        Index("ix_embeddings_weights", "weights", "model", "per"),
        Index("ix_embeddings_video_id", "video_id", "weights", "model", "per", "run_id"),
        _build_hnsw_index("video"),
        _build_hnsw_index("shot"),
    )

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    video_id: Mapped[str] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"))
    model: Mapped[str]
    weights: Mapped[str] = mapped_column(String(64))
    per: Mapped[str]
    dimensions: Mapped[int]
    start_frame: Mapped[int | None] = mapped_column(BigInteger)
    start_pts: Mapped[int | None] = mapped_column(BigInteger)
    end_frame: Mapped[int | None] = mapped_column(BigInteger)
    end_pts: Mapped[int | None] = mapped_column(BigInteger)
    vector: Mapped[list[float]] = mapped_column(VECTOR())


class ArtifactRow(Base):
    """A file that a run yielded, stored under its hash."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("run_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    name: Mapped[str]
    media_type: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WorkerRow(Base):
    """A worker as it announces itself; without heartbeats it counts as lost."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity())
    state: Mapped[str]
    reason: Mapped[str | None]
    models: Mapped[list[dict[str, Any]]]
    device: Mapped[str]
    precision: Mapped[str]
    run_id: Mapped[str | None]
    stopping: Mapped[bool] = mapped_column(server_default=text("false"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CounterRow(Base):
    """How often something has happened that leaves no row behind; it only grows."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[dict[str, Any]] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
