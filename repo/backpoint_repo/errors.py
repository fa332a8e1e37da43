"""The exception tree: every failure a user can meet, sorted by whose fault it is.

Each class carries the exit code the command line ends with; only `cli.py` turns it into one.
A message is one sentence a user can act on. Imports nothing, so every module may raise these.
"""

from __future__ import annotations


class BackpointError(Exception):
    """Anything Backpoint refuses or fails to do, with a message for the user."""

    exit_code = 2


class UsageError(BackpointError):
    """The user asked for something that does not exist or makes no sense."""

    exit_code = 2


class SourceError(BackpointError):
    """A disk that is being backed up cannot be read as promised; no point is made."""

    exit_code = 3


class SourceShrank(SourceError):
    """The source ended before the size it announced when it was opened."""


class RepositoryError(BackpointError):
    """The repository cannot do what was asked."""

    exit_code = 4


class NotARepository(RepositoryError):
    """There is no repository at this place."""


class UnknownFormat(RepositoryError):
    """An object was written by a newer version; this one refuses to guess its meaning."""


class StoreUnavailable(RepositoryError):
    """The store did not answer, or refused: it cannot be used *now*. Says nothing of the data."""


class StoreFull(StoreUnavailable):
    """No space left where the repository lives."""


class StoreReadOnly(StoreUnavailable):
    """The store does not let us write."""


class StoreDenied(StoreUnavailable):
    """The store does not accept our credentials, or not for what was asked."""


class StoreMisconfigured(StoreUnavailable):
    """The address or the settings are wrong: no such bucket, another region, no object store."""


class StoreUnfit(StoreReadOnly):
    """The store lacks a guarantee that a repository stands on, so nothing is written to it."""


class ObjectMissing(RepositoryError):
    """An object that something refers to is not in the store."""


class ObjectDamaged(RepositoryError):
    """An object is there, and its content is wrong: truncated, altered, swapped or forged."""


class ObjectExists(RepositoryError):
    """Put-if-absent found the key taken. The caller decides what it means; no user sees it."""


class SessionRevoked(RepositoryError):
    """This backup session was declared dead by a collector; its point was not published."""


class TargetError(BackpointError):
    """The place a disk is restored to cannot be written; nothing is left there that looks whole."""

    exit_code = 6


class KeyFault(BackpointError):
    """A passphrase or credential is wrong, missing, or not enough for what was asked."""

    exit_code = 5


class WrongPassphrase(KeyFault):
    """No key slot opens with this passphrase or recovery key."""


class OwnerKeyNeeded(KeyFault):
    """The agent credential was used for something that reads disk data."""
