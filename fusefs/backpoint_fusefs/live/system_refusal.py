"""What the system refuses of a session's files (no space, no permission), told to the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backpoint_repo.errors import UsageError


@contextmanager
def told(what: str) -> Iterator[None]:
    """what: begins the sentence. Raises UsageError in place of OSError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{what}: {error.strerror or error}") from error
