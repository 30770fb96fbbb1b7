"""Jobs: create, list, show, cancel, retry, delete."""

from api.jobs.records import JobRecord, RunRecord
from api.jobs.routes import bp

__all__ = ["JobRecord", "RunRecord", "bp"]
