"""Frozen domain values; import them from here."""

from shared.values.ledger import Job, Run, StoredVideo, Wake, Worker, labels_of, stamp
from shared.values.media import AudioStream, Video
from shared.values.time import Clock, Moment, Timeline, TimeRange, clock_time, timecode
from shared.values.work import (
    LIVE,
    Artifact,
    Embedding,
    FileMade,
    JobState,
    Progress,
    Result,
    RunState,
    Shot,
    Stage,
    job_state,
    new_id,
)

__all__ = [
    "LIVE",
    "Artifact",
    "AudioStream",
    "Clock",
    "Embedding",
    "FileMade",
    "Job",
    "JobState",
    "Moment",
    "Progress",
    "Result",
    "Run",
    "RunState",
    "Shot",
    "Stage",
    "StoredVideo",
    "TimeRange",
    "Timeline",
    "Video",
    "Wake",
    "Worker",
    "clock_time",
    "job_state",
    "labels_of",
    "new_id",
    "stamp",
    "timecode",
]
