"""Every error of Sceneworks, in one tree.

    SceneworksError
    ├── CallersFault            the request cannot succeed as it is: never retried
    │   ├── InvalidRequest          invalid_request        400
    │   ├── Unauthorized            unauthorized           401
    │   ├── Forbidden               forbidden              403
    │   ├── NotFound                not_found              404
    │   ├── Conflict                conflict               409
    │   ├── IdempotencyMismatch     idempotency_mismatch   422
    │   ├── UnsupportedMedia        unsupported_media      415
    │   ├── NoVideoStream           no_video_stream        422
    │   ├── MediaCorrupt            media_corrupt          422
    │   ├── VideoTooLong            video_too_long         422
    │   ├── VideoTooLarge           video_too_large        413
    │   ├── SourceForbidden         source_forbidden       422
    │   └── RateLimited             rate_limited           429   the one that may be sent again as it is
    ├── WorldsFault             may pass: a run is tried again, up to its limit of attempts
    │   ├── SourceUnreachable       source_unreachable     502
    │   ├── ModelUnavailable        model_unavailable      503
    │   ├── WeightsMissing          weights_missing        503   not retried: an operator must act
    │   ├── WeightsCorrupt          weights_corrupt        503   not retried: an operator must act
    │   ├── OutOfMemory             out_of_memory          503
    │   ├── DeadlineExceeded        deadline_exceeded      504
    │   ├── WorkerLost              worker_lost            503
    │   └── StorageFull             storage_full           507
    └── OursFault               a bug, or a run that kills its workers
        ├── PoisonRun               poison_run             500
        └── Internal                internal               500

The codes are a closed list and part of the contract; texts are for people and may change.
`detail` is shown to callers: never a traceback, a path or a connection address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Required, Self, TypedDict


class Problem(TypedDict, total=False):
    """RFC 9457 problem as it is stored with a run, a source file or a batch item; `code` is always there.

    `attempt` and `stage` (None: before the first) are added where a run failed.
    """

    type: str
    title: str
    status: int
    code: Required[str]
    detail: str
    retryable: bool
    errors: list[dict[str, str]]
    attempt: int
    stage: str | None


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault inside a request: where (JSON pointer), which, and what to do about it."""

    pointer: str
    code: str
    detail: str

    def to_dict(self) -> dict[str, str]:
        """The fault as it stands in a problem document."""
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class SceneworksError(Exception):
    """Root of the tree; `code`, `status`, `title` and `retryable` belong to the class, `detail` to the case."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.errors = errors

    @classmethod
    def at(cls, pointer: str, code: str, detail: str) -> Self:
        """Build an error about one place of a request.

        Args:
            pointer: JSON pointer into the body, or `/query/NAME`, `/headers/NAME`.
            code: the kind of fault, for programs.
            detail: for people; the detail of the error too, as there is no other fault.
        """
        return cls(detail, errors=(FieldError(pointer, code, detail),))

    def to_problem(self) -> dict[str, Any]:
        """RFC 9457 members that do not depend on the request: also stored as a run's error."""
        members: dict[str, Any] = {
            "type": f"urn:sceneworks:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "retryable": self.retryable,
        }
        if self.errors:
            members["errors"] = [error.to_dict() for error in self.errors]
        return members


class CallersFault(SceneworksError):
    """The request cannot succeed as it is."""

    code, status, title = "invalid_request", 400, "Invalid request"


class WorldsFault(SceneworksError):
    """Something outside went wrong and may pass."""

    retryable = True


class OursFault(SceneworksError):
    """A bug of ours."""


class InvalidRequest(CallersFault):
    """A field, parameter or body is wrong."""


class Unauthorized(CallersFault):
    """No key, or an unknown one."""

    code, status, title = "unauthorized", 401, "A valid API key is needed"


class Forbidden(CallersFault):
    """The key does not allow this."""

    code, status, title = "forbidden", 403, "Not allowed"


class NotFound(CallersFault):
    """No such thing."""

    code, status, title = "not_found", 404, "Not found"


class Conflict(CallersFault):
    """The thing is not in a state that allows this."""

    code, status, title = "conflict", 409, "Conflict with the present state"


class IdempotencyMismatch(CallersFault):
    """The same Idempotency-Key came with another body."""

    code, status, title = "idempotency_mismatch", 422, "Idempotency-Key was used with another request"


class UnsupportedMedia(CallersFault):
    """Not a video that can be read."""

    code, status, title = "unsupported_media", 415, "Not a readable video"


class NoVideoStream(CallersFault):
    """Audio or cover art only."""

    code, status, title = "no_video_stream", 422, "No video stream"


class MediaCorrupt(CallersFault):
    """A video, but damaged beyond use."""

    code, status, title = "media_corrupt", 422, "Damaged media"


class VideoTooLong(CallersFault):
    """Longer than this service takes."""

    code, status, title = "video_too_long", 422, "Video too long"


class VideoTooLarge(CallersFault):
    """More bytes than this service takes."""

    code, status, title = "video_too_large", 413, "Video too large"


class SourceForbidden(CallersFault):
    """An address that must not be fetched."""

    code, status, title = "source_forbidden", 422, "Source not allowed"


class RateLimited(CallersFault):
    """Too many requests at once."""

    code, status, title, retryable = "rate_limited", 429, "Too many requests", True


class SourceUnreachable(WorldsFault):
    """A source did not answer."""

    code, status, title = "source_unreachable", 502, "Source unreachable"


class ModelUnavailable(WorldsFault):
    """No worker can serve the model now."""

    code, status, title = "model_unavailable", 503, "Model unavailable"


class WeightsMissing(WorldsFault):
    """The weights file is not there; the detail names the command that gets it."""

    code, status, title, retryable = "weights_missing", 503, "Weights missing", False


class WeightsCorrupt(WorldsFault):
    """The weights file is not the pinned one."""

    code, status, title, retryable = "weights_corrupt", 503, "Weights corrupt", False


class OutOfMemory(WorldsFault):
    """One batch of one does not fit on the device."""

    code, status, title = "out_of_memory", 503, "Out of memory"


class DeadlineExceeded(WorldsFault):
    """The run took longer than it may."""

    code, status, title = "deadline_exceeded", 504, "Deadline exceeded"


class WorkerLost(WorldsFault):
    """The worker vanished in the middle of the run."""

    code, status, title = "worker_lost", 503, "Worker lost"


class StorageFull(WorldsFault):
    """No room left for a file."""

    code, status, title = "storage_full", 507, "Storage full"


class PoisonRun(OursFault):
    """The run took its worker down on every attempt and is set aside."""

    code, status, title = "poison_run", 500, "Run set aside after repeated worker loss"


class Internal(OursFault):
    """A bug; the log has the traceback under the request or run id."""

    code, status, title = "internal", 500, "Internal error"


def errors_by_code(root: type[SceneworksError] = SceneworksError) -> dict[str, type[SceneworksError]]:
    """Code -> class for the whole closed list."""
    by_code: dict[str, type[SceneworksError]] = {}
    for child in root.__subclasses__():
        descendants = errors_by_code(child)
        by_code |= descendants or {child.code: child}
    return by_code


def is_retryable(error: Exception) -> bool:
    """Tell whether a run whose attempt ended with this error should be attempted again."""
    # Not `error.retryable` alone: RateLimited invites the caller to repeat a request, not a worker to repeat a run.
    return isinstance(error, WorldsFault) and error.retryable
