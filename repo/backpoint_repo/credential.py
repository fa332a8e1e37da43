"""The agent credential as a file: the repository secret, without the owner's private key.

Whoever holds it can back up, deduplicate, list, prune and check structure, and cannot read a disk.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backpoint_repo.config import REPOSITORY_ID_SIZE, Config
from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import KeyFault, UsageError
from backpoint_repo.keyring import SECRET_SIZE, Keyring

_TYPE: Final = "backpoint agent credential"
_VERSION: Final = 1
_SIZE_MAX: Final = 64 << 10
_OWNER_DIGEST_SIZE: Final = 32


@dataclass(frozen=True)
class AgentCredential:
    """repository_id: 16 bytes; secret: 32 bytes; owner_digest: SHA-256 of the owner's public key,
    so that nobody can make an agent seal data keys to somebody else."""

    repository_id: bytes
    secret: bytes = field(repr=False)
    owner_digest: bytes

    @classmethod
    def of(cls, config: Config, secret: bytes) -> AgentCredential:
        """The credential of a repository whose configuration its owner has verified."""
        return cls(config.repository_id, secret, _owner_digest(config))

    def keyring(self, config: Config) -> Keyring:
        """The agent's keys. Raises KeyFault where the credential is another repository's."""
        if config.repository_id != self.repository_id:
            raise KeyFault(
                f"this credential is for repository {self.repository_id.hex()}, "
                f"not {config.repository_id.hex()}"
            )
        return Keyring(self.secret, config.owner_public)

    def check_owner(self, config: Config) -> None:
        """Raise KeyFault where data keys would be sealed to somebody else than the owner."""
        if not hmac.compare_digest(_owner_digest(config), self.owner_digest):
            raise KeyFault(
                "the repository names another owner's public key than this credential does: "
                "somebody has swapped it. Nothing is written; tell the owner."
            )


def write_credential(credential: AgentCredential, path: Path) -> None:
    """Write mode 0600, never over an existing file. Raises UsageError."""
    fields = {
        "type": _TYPE,
        "version": _VERSION,
        "repository": credential.repository_id.hex(),
        "secret": base64.b64encode(credential.secret).decode(),
        "owner_sha256": credential.owner_digest.hex(),
    }
    write_secret_file(path, json.dumps(fields, indent=1) + "\n")


def read_credential(path: Path) -> AgentCredential:
    """Raises KeyFault where the file cannot be read or is no agent credential."""
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(_SIZE_MAX))
        if fields["type"] != _TYPE or fields["version"] != _VERSION:
            raise KeyFault(f"{path}: not an agent credential that this version knows")
        repository_id = bytes.fromhex(fields["repository"])
        secret = base64.b64decode(fields["secret"], validate=True)
        owner_digest = bytes.fromhex(fields["owner_sha256"])
    except OSError as error:
        raise KeyFault(f"cannot read the credential {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeyFault(f"{path}: not an agent credential") from error
    sizes = (len(repository_id), len(secret), len(owner_digest))
    if sizes != (REPOSITORY_ID_SIZE, SECRET_SIZE, _OWNER_DIGEST_SIZE):
        raise KeyFault(f"{path}: not an agent credential")
    return AgentCredential(repository_id, secret, owner_digest)


def _owner_digest(config: Config) -> bytes:
    return hashlib.sha256(config.owner_public).digest()


def write_secret_file(path: Path, text: str) -> None:
    """Create a file only its owner can read.

    Raises UsageError where it exists or cannot be; half a file is taken away again.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists; it is not overwritten") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(path.parent)
    except OSError as error:
        path.unlink()
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
