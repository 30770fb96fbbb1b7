"""Jobs: asked for, read, listed, cancelled, retried, deleted."""

from api.jobs.records import JobRecord, RunRecord
from api.jobs.routes import bp, cancel, delete, retry

__all__ = ["JobRecord", "RunRecord", "bp", "cancel", "delete", "retry"]
