"""The recovery key: 32 random bytes as a person writes them down, with a checksum against slips."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Final

from backpoint_repo.errors import WrongPassphrase

ENTROPY_SIZE: Final = 32
_CHECK_SIZE: Final = 3
_NAME: Final = "BPR"
_PREFIX: Final = _NAME + "-"
_SYMBOLS: Final = 56
_GROUP: Final = 4
_LOOKALIKES: Final = str.maketrans({"0": "O", "1": "I", "8": "B"})


def new_recovery_key() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(ENTROPY_SIZE)


def format_recovery_key(entropy: bytes) -> str:
    """`BPR-XXXX-XXXX-...`: base32 of the key and a 3-byte checksum, in 14 groups of four."""
    text = base64.b32encode(entropy + _check(entropy)).decode()
    return _PREFIX + "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def parse_recovery_key(text: str) -> bytes | None:
    """The 32 bytes, or None where the text is no recovery key at all (perhaps a passphrase).

    Case, spaces, dashes and look-alike digits do not matter.
    Raises WrongPassphrase where it is a recovery key with a slip in it.
    """
    upper = text.strip().upper()
    symbols = "".join(upper.replace("-", " ").split()).removeprefix(_NAME)
    # Without its dash "BPR" may begin a passphrase; at full length it does not.
    written_out = symbols != upper and upper.startswith(_NAME) and len(symbols) == _SYMBOLS
    if not upper.startswith(_PREFIX) and not written_out:
        return None
    try:
        data = base64.b32decode(symbols.translate(_LOOKALIKES))
    except ValueError:
        data = b""
    entropy, check = data[:ENTROPY_SIZE], data[ENTROPY_SIZE:]
    if len(entropy) != ENTROPY_SIZE or check != _check(entropy):
        raise WrongPassphrase("the recovery key is mistyped: its checksum does not match")
    return entropy


def _check(entropy: bytes) -> bytes:
    return hashlib.sha256(b"backpoint recovery key" + entropy).digest()[:_CHECK_SIZE]
