"""Key slots: the owner's keys, wrapped under passphrases and recovery keys.

A slot can be added, listed and revoked without touching data. Passphrases go through scrypt;
recovery keys have full entropy and do not. Who may ask for a passphrase, and where it comes from,
is the command line's business.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from backpoint_repo import aead
from backpoint_repo.config import Config
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    UnknownFormat,
    UsageError,
    WrongPassphrase,
)
from backpoint_repo.format import (
    FOLDERS,
    HEADER,
    ID_SIZE,
    TAG_SIZE,
    Kind,
    expect_header,
    header,
    object_key,
)
from backpoint_repo.keyring import SECRET_SIZE, Keyring
from backpoint_repo.record import Record, encode_record
from backpoint_repo.recovery_key import parse_recovery_key
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import open_record, seal_record
from backpoint_repo.store.contract import Store

PASSPHRASE: Final = "passphrase"
RECOVERY: Final = "recovery"
DAMAGED: Final = "damaged"
_OWNER_PRIVATE_SIZE: Final = 32
_SALT_SIZE: Final = 32
_NONCE: Final = bytes(12)
"""Constant: a wrapping key is used once, because its salt is new."""
_SCRYPT_R: Final = 8
_SCRYPT_MEMORY_MAX: Final = 1 << 30
"""A slot may not ask for more memory than this: slots are untrusted until opened."""


@dataclass(frozen=True)
class ScryptCost:
    """RFC 7914 parameters. The default (64 MiB, twice) equals OWASP's recommended strength."""

    n: int = 1 << 16
    p: int = 2

    def derive(self, passphrase: str, salt: bytes) -> bytes:
        """A 32-byte key."""
        return hashlib.scrypt(
            # A passphrase file may hold any bytes; they arrive as surrogates. One system types é as
            # one code point, another as two: both must open the slot.
            unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape"),
            salt=salt,
            n=self.n,
            r=_SCRYPT_R,
            p=self.p,
            maxmem=_SCRYPT_MEMORY_MAX,
            dklen=32,
        )


@dataclass(frozen=True)
class Slot:
    """One slot as the owner sees it. method: PASSPHRASE, RECOVERY, or DAMAGED for an object that
    opens nothing. created: seconds since 1970."""

    slot_id: str
    method: str
    label: str
    created: float


def add_slot(
    sealed: SealedStore, secret_text: str, label: str, cost: ScryptCost, now: float
) -> Slot:
    """Wrap the owner's keys under a passphrase, or under a recovery key in its written form.

    Raises UsageError for an empty passphrase.
    """
    if not secret_text:
        raise UsageError("an empty passphrase protects nothing")
    slot_id, salt = secrets.token_hex(8), secrets.token_bytes(_SALT_SIZE)
    entropy = parse_recovery_key(secret_text)
    method = PASSPHRASE if entropy is None else RECOVERY
    wrapping_key = _wrapping_key(secret_text, entropy, salt, cost)
    keyring = sealed.keyring
    assert keyring.owner_private is not None
    bound = _bound(slot_id, sealed.repository_id)
    wrapped = aead.encrypt(wrapping_key, _NONCE, keyring.secret + keyring.owner_private, bound)
    fields = {
        "repository": sealed.repository_id,
        "method": method,
        "n": cost.n,
        "p": cost.p,
        "salt": salt,
        "wrapped": wrapped,
    }
    # Without it nobody but the slot's user could tell that the slot opens nothing any more.
    digest = _slot_digest(Record(fields, slot_id))
    info = encode_record({"label": label, "created": now, "digest": digest})
    fields["info"] = seal_record(Kind.SLOT, slot_id, info, keyring.meta_key, sealed.packer)
    place = object_key(Kind.SLOT, slot_id)
    sealed.store.put(place, [header(Kind.SLOT), encode_record(fields)])
    return Slot(slot_id, method, label, now)


def list_slots(sealed: SealedStore) -> list[Slot]:
    """All slots, oldest first; those that are damaged or of another repository before them."""
    found = []
    for slot_id in _slot_ids(sealed.store):
        try:
            found.append(_read_info(sealed, slot_id))
        except ObjectMissing:
            continue  # revoked between listing and reading
        except (ObjectDamaged, UnknownFormat):
            found.append(Slot(slot_id, DAMAGED, "", 0.0))
    return sorted(found, key=lambda slot: slot.created)


def revoke_slot(sealed: SealedStore, prefix: str, *, force: bool) -> Slot:
    """Delete the slot whose id begins with `prefix`.

    Raises UsageError where none or several match, or where it is the last one and not `force`.
    """
    slots = list_slots(sealed)
    matching = [slot for slot in slots if slot.slot_id.startswith(prefix)]
    if len(matching) != 1:
        known = ", ".join(slot.slot_id for slot in matching or slots)
        raise UsageError(f"{prefix!r} names {len(matching)} key slots; there are: {known}")
    good = {slot.slot_id for slot in slots if slot.method != DAMAGED}
    if good == {matching[0].slot_id} and not force:
        raise UsageError(
            "this is the last key slot: without it nobody can ever read the repository again. "
            "Add another first, or use --force."
        )
    sealed.delete(Kind.SLOT, matching[0].slot_id)
    return matching[0]


def drop_strange_slots(sealed: SealedStore) -> None:
    """Delete what an init that died, or lost a race, has left: slots of no repository here."""
    for slot_id in _slot_ids(sealed.store):
        try:
            owner = _read_slot(sealed.store, slot_id).get("repository", bytes)
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            continue  # not ours to judge
        if owner != sealed.repository_id:
            sealed.delete(Kind.SLOT, slot_id)


def open_with(store: Store, config: Config, secret_text: str) -> Keyring:
    """The owner's keyring, through whichever slot opens. Raises as `open_slot`."""
    return open_slot(store, config, secret_text)[1]


def open_slot(store: Store, config: Config, secret_text: str) -> tuple[str, Keyring]:
    """The id of the slot that this passphrase or recovery key opens, and the owner's keyring.

    A damaged slot locks nobody out of the others. Raises WrongPassphrase; ObjectDamaged or
    UnknownFormat where no slot could even be tried.
    """
    entropy = parse_recovery_key(secret_text)
    method = PASSPHRASE if entropy is None else RECOVERY
    fault: RepositoryError | None = None
    tried, stranger = False, False
    for slot_id in _slot_ids(store):
        try:
            record = _read_slot(store, slot_id)
            stranger |= record.get("repository", bytes) != config.repository_id
            if record.get("method", str) != method:
                continue
            plain = _try_slot(record, slot_id, config, secret_text, entropy)
        except ObjectMissing:
            continue  # revoked between listing and reading
        except (ObjectDamaged, UnknownFormat) as error:
            fault = error
            continue
        tried = True
        if plain is not None:
            secret, owner_private = plain[:SECRET_SIZE], plain[SECRET_SIZE:]
            return slot_id, Keyring(secret, config.owner_public, owner_private)
    if fault is not None and not tried:
        raise fault
    message = "wrong recovery key" if entropy else "wrong passphrase: it opens no key slot"
    if stranger:
        message += "; and a slot is not of the repository that `config` names: one was swapped"
    raise WrongPassphrase(message if fault is None else f"{message}; and one is damaged: {fault}")


def _try_slot(
    record: Record, slot_id: str, config: Config, text: str, entropy: bytes | None
) -> bytes | None:
    """The wrapped keys, or None where the text is not this slot's."""
    cost = _sane_cost(record, slot_id)
    salt = record.sized("salt", _SALT_SIZE)
    wrapped = record.get("wrapped", bytes)
    return _unwrap(_wrapping_key(text, entropy, salt, cost), slot_id, config.repository_id, wrapped)


def _wrapping_key(text: str, entropy: bytes | None, salt: bytes, cost: ScryptCost) -> bytes:
    if entropy is None:
        return cost.derive(text, salt)
    key = HKDF(entropy, 32, salt, SHA256, context=b"backpoint v1 recovery slot")
    assert isinstance(key, bytes)
    return key


def _unwrap(key: bytes, slot_id: str, repository_id: bytes, wrapped: bytes) -> bytes | None:
    """None where the key is not this slot's."""
    if len(wrapped) != SECRET_SIZE + _OWNER_PRIVATE_SIZE + TAG_SIZE:
        raise ObjectDamaged(f"slots/{slot_id}: its wrapped keys have the wrong size")
    try:
        return aead.decrypt(key, _NONCE, wrapped, _bound(slot_id, repository_id))
    except aead.WrongTag:
        return None


def _bound(slot_id: str, repository_id: bytes) -> bytes:
    return header(Kind.SLOT) + repository_id + slot_id.encode()


def _slot_ids(store: Store) -> list[str]:
    return [found.key.rpartition("/")[2] for found in store.list(f"{FOLDERS[Kind.SLOT]}/")]


def _read_slot(store: Store, slot_id: str) -> Record:
    key = object_key(Kind.SLOT, slot_id)
    data = store.get(key)
    expect_header(data, Kind.SLOT, key)
    return Record.decode(data[HEADER.size :], key)


def verify_slot(sealed: SealedStore, slot_id: str) -> None:
    """Is the slot as it was written? Raises ObjectMissing, ObjectDamaged, UnknownFormat."""
    _read_info(sealed, slot_id)


def _read_info(sealed: SealedStore, slot_id: str) -> Slot:
    record = _read_slot(sealed.store, slot_id)
    sealed_info, meta_key = record.get("info", bytes), sealed.keyring.meta_key
    info = Record.decode(
        open_record(Kind.SLOT, slot_id, sealed_info, meta_key, sealed.packer), slot_id
    )
    if _slot_digest(record) != info.sized("digest", ID_SIZE):
        raise ObjectDamaged(f"slots/{slot_id}: was altered; it opens nothing")
    return Slot(
        slot_id, record.get("method", str), info.get("label", str), info.get("created", float)
    )


def _slot_digest(record: Record) -> bytes:
    """BLAKE3 of what opens the slot, so that an altered one is found without its passphrase."""
    hasher = blake3(record.get("repository", bytes))
    for name in ("n", "p"):
        hasher.update(record.natural(name).to_bytes(8, "little"))
    hasher.update(record.sized("salt", _SALT_SIZE))
    hasher.update(record.get("wrapped", bytes))
    hasher.update(record.get("method", str).encode())
    return hasher.digest()


def _sane_cost(record: Record, slot_id: str) -> ScryptCost:
    cost = ScryptCost(record.natural("n"), record.natural("p"))
    power_of_two = cost.n > 1 and cost.n & (cost.n - 1) == 0
    # scrypt needs a little more than the product, so the limit itself is too much already.
    if not power_of_two or 128 * _SCRYPT_R * cost.n >= _SCRYPT_MEMORY_MAX or not 1 <= cost.p <= 16:
        raise ObjectDamaged(f"slots/{slot_id}: impossible scrypt parameters")
    return cost
