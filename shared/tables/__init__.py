"""SQLAlchemy rows of the ledger. Only `shared.store` and the migrations know them; import them from here."""

from shared.tables.archive import BatchItemRow, BatchRow, PlaceRow, QueueRow, ScheduleRow, SlotRow, SourceRow
from shared.tables.ledger import (
    COSINE_KEY,
    INDEXED_DIMENSIONS,
    LIVE_OR_DONE,
    ArtifactRow,
    Base,
    EmbeddingRow,
    JobRow,
    JobRunRow,
    NeedRow,
    ResultRow,
    RunRow,
    VideoRow,
    WorkerRow,
)

__all__ = [
    "COSINE_KEY",
    "INDEXED_DIMENSIONS",
    "LIVE_OR_DONE",
    "ArtifactRow",
    "Base",
    "BatchItemRow",
    "BatchRow",
    "EmbeddingRow",
    "JobRow",
    "JobRunRow",
    "NeedRow",
    "PlaceRow",
    "QueueRow",
    "ResultRow",
    "RunRow",
    "ScheduleRow",
    "SlotRow",
    "SourceRow",
    "VideoRow",
    "WorkerRow",
]
