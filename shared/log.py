"""Logs: one JSON line an event, with an `action` that tests and machines read instead of prose."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

from shared.settings import get_settings

SHARED_STEPS = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


class JsonLinesHandler(logging.StreamHandler[TextIO]):
    """Our handler: configuring again replaces it, and leaves those of others alone."""


def configure_logging() -> None:
    """Send structlog and the standard library's loggers to standard error as JSON lines."""
    structlog.configure(
        processors=[*SHARED_STEPS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = JsonLinesHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED_STEPS,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("action"),
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [
        *(existing for existing in root.handlers if not isinstance(existing, JsonLinesHandler)),
        handler,
    ]
    root.setLevel(get_settings().log_level.upper())


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; the first argument of its methods is the action, such as `run.claimed`."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return bound
