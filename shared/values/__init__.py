"""Frozen domain values; import them from here."""

from shared.values.embeddings import Embedding
from shared.values.ids import new_id
from shared.values.jobs import Job, JobState, derive_job_state, parse_labels
from shared.values.results import Artifact, OutputFile, Result, Shot
from shared.values.runs import LIVE_STATES, Progress, Run, RunState, Stage, WakeUp
from shared.values.time import Clock, Moment, Timeline, TimeRange, format_clock_time, format_timecode, format_timestamp
from shared.values.videos import AudioStream, StoredVideo, VideoFacts
from shared.values.workers import Worker

__all__ = [
    "LIVE_STATES",
    "Artifact",
    "AudioStream",
    "Clock",
    "Embedding",
    "Job",
    "JobState",
    "Moment",
    "OutputFile",
    "Progress",
    "Result",
    "Run",
    "RunState",
    "Shot",
    "Stage",
    "StoredVideo",
    "TimeRange",
    "Timeline",
    "VideoFacts",
    "WakeUp",
    "Worker",
    "derive_job_state",
    "format_clock_time",
    "format_timecode",
    "format_timestamp",
    "new_id",
    "parse_labels",
]
