"""How the second reader gets keys and opens what is sealed, from FORMAT.md alone.

Shares no code with backpoint_repo. Section numbers are FORMAT.md's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import zstandard
from blake3 import blake3
from Crypto.Cipher import AES


class Damaged(Exception):
    """An object breaks a rule of the format."""


class NotOpened(Exception):
    """No slot opens, or the owner's key is needed."""


class Keys(NamedTuple):
    """What a credential gives; private is None with the agent credential."""

    secret: bytes
    private: bytes | None


def by_passphrase(root: Path, passphrase: str) -> Keys:
    """4.4"""

    def wrapping_key(slot: dict[str, Any]) -> bytes:
        return hashlib.scrypt(
            passphrase.encode(),
            salt=slot["salt"],
            n=slot["n"],
            r=8,
            p=slot["p"],
            maxmem=2**31 - 1,
            dklen=32,
        )

    return _open_slot(root, "passphrase", wrapping_key)


def by_recovery_key(root: Path, text: str) -> Keys:
    """4.4"""
    symbols = text.removeprefix("BPR-").replace("-", "")
    data = base64.b32decode(symbols)
    entropy, check = data[:32], data[32:]
    if check != hashlib.sha256(b"backpoint recovery key" + entropy).digest()[:3]:
        raise NotOpened("a slip in the recovery key")
    return _open_slot(
        root,
        "recovery",
        lambda slot: derive(entropy, b"backpoint v1 recovery slot", slot["salt"]),
    )


def by_credential(path: Path) -> Keys:
    """4.1"""
    fields = json.loads(path.read_text())
    assert fields["type"] == "backpoint agent credential"
    assert fields["version"] == 1
    return Keys(base64.b64decode(fields["secret"]), None)


def _open_slot(root: Path, method: str, wrapping_key: Callable[[dict[str, Any]], bytes]) -> Keys:
    repository = decode_record((root / "config").read_bytes()[40:])["repository"]
    for path in files_in(root, "slots"):
        slot = decode_record(path.read_bytes()[8:])
        if kind_of(path) != 2 or slot["method"] != method:
            continue
        place = _header(2) + repository + path.name.encode()
        try:
            plain = decrypt(wrapping_key(slot), bytes(12), place, slot["wrapped"])
        except Damaged:
            continue
        return Keys(plain[:32], plain[32:])
    raise NotOpened("no slot opens")


def slot_info(root: Path, keys: Keys, name: str) -> dict[str, Any]:
    """The label and time of a slot (4.4)."""
    slot = decode_record((root / "slots" / name).read_bytes()[8:])
    meta = derive(keys.secret, b"backpoint v1 meta")
    info = decode_record(open_record(meta, 2, name, slot.pop("info")))
    cost = slot["n"].to_bytes(8, "little") + slot["p"].to_bytes(8, "little")
    told = slot["repository"] + cost + slot["salt"] + slot["wrapped"] + slot["method"].encode()
    if info["digest"] != blake3(told).digest():
        raise Damaged(f"slots/{name}: altered")
    return info


def read_config(root: Path, key: bytes) -> dict[str, Any]:
    """4.3"""
    data = (root / "config").read_bytes()
    mac = blake3(data[:8] + data[40:], key=key).digest()
    if kind_of(root / "config") != 1 or not hmac.compare_digest(mac, data[8:40]):
        raise Damaged("config: wrong MAC")
    return decode_record(data[40:])


def open_record(meta: bytes, kind: int, place: str, sealed: bytes) -> bytes:
    """4.2"""
    key = blake3(b"object" + sealed[:32], key=meta).digest()
    plain = decrypt(key, bytes(12), _header(kind) + place.encode(), sealed[32:])
    return unpack(plain[0], plain[1:])


def decrypt(key: bytes, nonce: bytes, associated: bytes, sealed: bytes) -> bytes:
    cipher = AES.new(key, AES.MODE_OCB, nonce=nonce, mac_len=16)
    cipher.update(associated)
    try:
        return bytes(cipher.decrypt_and_verify(sealed[:-16], sealed[-16:]))
    except ValueError as error:
        raise Damaged("a tag does not verify") from error


def unpack(codec: int, packed: bytes) -> bytes:
    if codec == 0:
        return packed
    if codec != 1 or not 0 <= zstandard.frame_content_size(packed) <= 1 << 30:
        raise Damaged("an unknown codec, or a frame without an honest size")
    return zstandard.ZstdDecompressor().decompress(packed)


def derive(secret: bytes, info: bytes, salt: bytes = b"") -> bytes:
    """HKDF-SHA-256 for 32 bytes, spelled out."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def decode_record(payload: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = msgpack.unpackb(payload)
    return fields


def _header(kind: int) -> bytes:
    return b"BCKPNT" + bytes([kind, 1])


def kind_of(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8 or head[:6] != b"BCKPNT" or head[7] != 1:
        raise Damaged(f"{path}: not of this format")
    return head[6]


def files_in(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).glob("*")) if (root / folder).exists() else []
