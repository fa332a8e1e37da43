"""Makes stored objects wrong: bent, swapped, brought back from the past, or forged with the key.

Decides what is done to which object, by a seed. What must hold afterwards is for the tests.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgpack
from blake3 import blake3

from backpoint_repo.format import (
    CONFIG_KEY,
    HEADER,
    PACK_TRAILER,
    Kind,
    header,
    parse_header,
)
from backpoint_repo.repository import Repository
from backpoint_repo.sealing import open_object, open_record, seal_object, seal_record
from backpoint_repo.store.contract import Piece
from backpoint_repo.store.memory import MemoryStore
from faults.odd_content import NUMBERS, bent, odd_arrays, odd_record

SEALED: Final = (
    *(Kind.INDEX, Kind.POINT, Kind.VOID, Kind.LEASE, Kind.TRASH),
    *(Kind.DAMAGE, Kind.CATALOG, Kind.NOTE, Kind.POLICY, Kind.READING),
)


class History(MemoryStore):
    """Keeps in mind every object that was ever there: what a store could bring back."""

    def __init__(self) -> None:
        super().__init__()
        self.ever: dict[str, bytes] = {}

    def put(self, key: str, pieces: list[Piece]) -> None:
        super().put(key, pieces)
        self.ever[key] = self.get(key)


class Loose(MemoryStore):
    """A copy of a store, whose objects can be replaced."""

    def __init__(self, whole: MemoryStore) -> None:
        super().__init__()
        self.objects = self._objects
        self.objects.update({found.key: whole.get(found.key) for found in whole.list("")})


@dataclass(frozen=True)
class Wrong:
    """what: for the message. keys: objects that are not what they were. forged: with the key, so
    they may be taken for good."""

    what: str
    keys: frozenset[str]
    forged: bool = False


@dataclass(frozen=True)
class Fuzzer:
    """Of one whole repository. keys: every object that is there, by kind."""

    whole: Repository
    history: History
    keys: dict[Kind, list[str]]

    def bend(self, store: Loose, rng: random.Random) -> Wrong:
        """One object, as a bad disk or memory would."""
        key = self._any_key(rng)
        store.objects[key] = bent(store.objects[key], rng)
        return Wrong(f"bent {key}", frozenset({key}))

    def swap(self, store: Loose, rng: random.Random) -> Wrong:
        """Two objects, or one put in the place of another."""
        first, second = self._any_key(rng), self._any_key(rng)
        one, two = store.objects[first], store.objects[second]
        store.objects[first] = two
        if rng.random() < 0.5:
            return Wrong(f"{second} also at {first}", frozenset({first}))
        store.objects[second] = one
        return Wrong(f"swapped {first} and {second}", frozenset({first, second}))

    def replay(self, store: Loose, rng: random.Random) -> Wrong:
        """Objects that were deleted are there again: one, a few, or all of them."""
        gone = sorted(self.history.ever.keys() - store.objects.keys())
        some = rng.choice((1, 3, len(gone)))
        back = rng.sample(gone, min(some, len(gone)))
        store.objects.update({key: self.history.ever[key] for key in back})
        return Wrong(f"back again: {back}", frozenset(back))

    def hide(self, store: Loose, rng: random.Random) -> Wrong:
        """An object that is not there."""
        key = self._any_key(rng)
        del store.objects[key]
        return Wrong(f"hidden {key}", frozenset({key}))

    def forge(self, store: Loose, rng: random.Random) -> Wrong:
        """An object with a right seal and odd content, in the place of another or as a new one."""
        key = self._any_key(rng)
        data = store.objects[key]
        forged = self._forged(key, data, rng)
        if rng.random() < 0.5 or key == CONFIG_KEY:
            store.objects[key] = forged(key)
            return Wrong(f"forged {key}", frozenset({key}), forged=True)
        new = _new_name(key, rng)
        store.objects[new] = forged(new)
        return Wrong(f"forged {new} after {key}", frozenset({new}), forged=True)

    def _any_key(self, rng: random.Random) -> str:
        """All kinds alike, however many objects they have."""
        return rng.choice(self.keys[rng.choice(sorted(self.keys))])

    def _forged(self, key: str, data: bytes, rng: random.Random) -> Callable[[str], bytes]:
        """A maker of the object for the place where it will be."""
        kind = parse_header(data, key)
        keyring, packer = self.whole.sealed.keyring, self.whole.sealed.packer
        if kind in SEALED:
            payload = open_object(kind, key, data, keyring.meta_key, packer)
            if kind is Kind.INDEX:
                odd = odd_arrays(payload, rng)
                return lambda at: seal_object(kind, at, odd, keyring.meta_key, packer)
            fits = rng.random() < 0.8

            def named(at: str) -> bytes:
                made = odd_record(_fitting(at, payload) if fits else payload, rng)
                return seal_object(kind, at, made, keyring.meta_key, packer)

            return named
        if kind in (Kind.DATA_PACK, Kind.NODE_PACK, Kind.PARITY):
            length, magic = PACK_TRAILER.unpack(data[-PACK_TRAILER.size :])
            end = len(data) - PACK_TRAILER.size
            record = data[end - length : end]
            plain = open_record(kind, key, record, keyring.meta_key, packer)
            is_parity = kind is Kind.PARITY
            odd = odd_record(plain, rng) if is_parity else odd_arrays(plain, rng)
            body = data[: end - length]

            def with_record(at: str) -> bytes:
                sealed = seal_record(kind, at, odd, keyring.meta_key, packer)
                return body + sealed + PACK_TRAILER.pack(len(sealed), magic)

            return with_record
        if kind is Kind.CONFIG:
            record = odd_record(data[HEADER.size + 32 :], rng)
            mac = blake3(header(kind) + record, key=keyring.config_key).digest()
            return lambda _: header(kind) + mac + record
        odd = odd_record(data[HEADER.size :], rng)
        return lambda _: header(kind) + odd


def fuzzer_of(whole: Repository, history: History) -> Fuzzer:
    """Of what is in the history's store now."""
    keys: dict[Kind, list[str]] = {}
    for found in history.list(""):
        keys.setdefault(parse_header(history.get(found.key), found.key), []).append(found.key)
    assert keys.keys() == set(Kind)
    return Fuzzer(whole, history, keys)


def _fitting(key: str, payload: bytes) -> bytes:
    """What the record says of its own name, as its key has it now."""
    folder, _, name = key.rpartition("/")
    fields = msgpack.unpackb(payload)
    if folder == "trash":
        fields["epoch"] = int(name, 16)
    if folder == "leases":
        fields["session"] = bytes.fromhex(name[:32])
    if folder == "notes":
        fields["point"] = bytes.fromhex(name[:32])
    return bytes(msgpack.packb(fields))


def _new_name(key: str, rng: random.Random) -> str:
    """A key of the same shape that is not taken."""
    folder, _, name = key.rpartition("/")
    if folder == "trash":
        epoch = rng.choice((int(name, 16) + 1, *(number for number in NUMBERS if number > 2)))
        return f"trash/{epoch:016x}"
    if folder == "leases" and rng.random() < 0.5:
        return f"leases/{name[:33]}{rng.choice((2, 9, (1 << 32) - 1)):08x}"
    if folder == "notes" and rng.random() < 0.7:
        return f"notes/{rng.randbytes(16).hex()}{name[32:]}"
    fresh = rng.randbytes(len(name) // 2).hex() + name[2 * (len(name) // 2) :]
    if folder.startswith(("packs/", "nodes/")):
        return f"{folder[:6]}{fresh[:2]}/{fresh}"
    return f"{folder}/{fresh}"
