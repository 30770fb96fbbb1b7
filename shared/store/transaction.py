"""How a verb of the store becomes one transaction."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from psycopg.errors import DeadlockDetected, SerializationFailure
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

P = ParamSpec("P")
R = TypeVar("R")
MAX_TRIES = 5


def transactional(body: Callable[Concatenate[Session, P], R]) -> Callable[Concatenate[Engine, P], R]:
    """Run `body` in one transaction on the engine given; when Postgres breaks a deadlock by choosing us, once more."""

    @wraps(body)
    def run_transaction(engine: Engine, *args: P.args, **kwargs: P.kwargs) -> R:
        for attempts_left in reversed(range(MAX_TRIES)):
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    return body(session, *args, **kwargs)
            except OperationalError as error:
                if not attempts_left or not isinstance(error.orig, DeadlockDetected | SerializationFailure):
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    return cast("Callable[Concatenate[Engine, P], R]", run_transaction)
