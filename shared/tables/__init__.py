"""SQLAlchemy rows of the database. Only `shared.store` and the migrations know them; import them from here."""

from shared.tables.batches import BatchEventRow, BatchItemRow, BatchRow, QueueRow, ScheduleRow, SlotRow
from shared.tables.jobs import (
    COSINE_KEY,
    INDEXED_DIMENSIONS,
    LIVE_OR_DONE,
    ArtifactRow,
    Base,
    CounterRow,
    EmbeddingRow,
    JobRow,
    JobRunRow,
    NeedRow,
    ResultRow,
    RunRow,
    WorkerRow,
)
from shared.tables.videos import SourceFileRow, SourceRow, VideoRow

__all__ = [
    "COSINE_KEY",
    "INDEXED_DIMENSIONS",
    "LIVE_OR_DONE",
    "ArtifactRow",
    "Base",
    "BatchEventRow",
    "BatchItemRow",
    "BatchRow",
    "CounterRow",
    "EmbeddingRow",
    "JobRow",
    "JobRunRow",
    "NeedRow",
    "QueueRow",
    "ResultRow",
    "RunRow",
    "ScheduleRow",
    "SlotRow",
    "SourceFileRow",
    "SourceRow",
    "VideoRow",
    "WorkerRow",
]
