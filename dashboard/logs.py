"""The dashboard's log: JSON lines on standard output, or readable ones on a terminal."""

import logging
import sys
from typing import Literal

import structlog


def configure(log_format: Literal["auto", "json", "console"]) -> None:
    """Set up structlog, and have libraries' warnings in the same place."""
    terminal = sys.stdout.isatty()
    readable = terminal if log_format == "auto" else log_format == "console"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _named,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=terminal, timestamp_key="time")
            if readable
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def _named(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event["process"] = "dashboard"
    return event
