"""Jobs: asked for, read, listed, cancelled, retried, deleted."""

from api.jobs.records import JobRecord, RunRecord
from api.jobs.routes import bp, cancel_job, delete_job, retry_job

__all__ = ["JobRecord", "RunRecord", "bp", "cancel_job", "delete_job", "retry_job"]
