"""msgpack maps as typed values: what a stored record must look like before anyone believes it.

Records come out of authenticated objects, yet an agent may be hostile; so every field is checked.
Unknown fields are kept out of the way (a later minor version may add some), missing ones are
damage.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgpack

from backpoint_repo.errors import ObjectDamaged

T = TypeVar("T")
ITEMS_MAX: Final = 1 << 24


def encode_record(fields: dict[str, Any]) -> bytes:
    """A msgpack map. Values: None, bool, int, float, str, bytes, lists and maps of those."""
    packed: bytes = msgpack.packb(fields, use_bin_type=True)
    return packed


class Record:
    """A decoded map; `what` names the object in errors."""

    def __init__(self, fields: object, what: str) -> None:
        if not isinstance(fields, dict):
            raise ObjectDamaged(f"{what}: is not a record")
        self._fields = fields
        self._what = what

    @classmethod
    def decode(cls, payload: bytes, what: str) -> Record:
        """Raises ObjectDamaged where the payload is not one msgpack map."""
        try:
            fields = msgpack.unpackb(
                payload, raw=False, strict_map_key=True, max_array_len=ITEMS_MAX
            )
        except (ValueError, msgpack.UnpackException) as error:
            raise ObjectDamaged(f"{what}: is not a record: {error}") from error
        return cls(fields, what)

    def get(self, name: str, kind: type[T]) -> T:
        """The field, of exactly this type. Raises ObjectDamaged."""
        value = self._fields.get(name)
        if type(value) is not kind:
            raise ObjectDamaged(f"{self._what}: field {name!r} is missing or of the wrong type")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """The field, or None where it is null or absent."""
        return None if self._fields.get(name) is None else self.get(name, kind)

    def sized(self, name: str, size: int) -> bytes:
        """A byte string of exactly `size` bytes."""
        value = self.get(name, bytes)
        if len(value) != size:
            raise ObjectDamaged(f"{self._what}: field {name!r} has {len(value)} bytes, not {size}")
        return value

    def natural(self, name: str) -> int:
        """An integer from 0 to 2^63 - 1, so that one more can still be written down."""
        value = self.get(name, int)
        if not 0 <= value < 1 << 63:
            raise ObjectDamaged(f"{self._what}: field {name!r} is out of range")
        return value

    def items(self, name: str, kind: type[T]) -> list[T]:
        """A list whose items all have this type."""
        values: list[Any] = self.get(name, list)
        if any(type(value) is not kind for value in values):
            raise ObjectDamaged(f"{self._what}: field {name!r} holds something else")
        return values

    def records(self, name: str) -> list[Record]:
        """A list of maps."""
        values: list[Any] = self.get(name, list)
        return [Record(value, f"{self._what}.{name}") for value in values]

    def record(self, name: str) -> Record:
        """A map inside the map."""
        return Record(self._fields.get(name), f"{self._what}.{name}")

    def plain(self) -> dict[str, Any]:
        """All fields, unchecked."""
        return self._fields
