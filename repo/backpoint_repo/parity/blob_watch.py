"""Is a pack good, while its bytes pass by? Spares made of rot would protect the rot.

Fed with a pack's bytes in order, holds each blob against the digest in the pack's directory.
"""

from __future__ import annotations

from blake3 import blake3

from backpoint_repo.format import DIGEST_SIZE, HEADER
from backpoint_repo.pack import PackDirectory


class BlobWatch:
    """For one pack, from its first byte on."""

    def __init__(self, directory: PackDirectory) -> None:
        self._ends: list[int] = (directory.offsets + directory.lengths).tolist()
        self.directory = directory
        self._hash = blake3()
        self._position = 0
        self._blob = 0
        self._bad: list[int] = []

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        view = memoryview(data)
        at = min(len(view), max(0, HEADER.size - self._position))
        while self._blob < len(self._ends) and at < len(view):
            size = min(len(view) - at, self._ends[self._blob] - self._position - at)
            self._hash.update(view[at : at + size])
            at += size
            if self._position + at == self._ends[self._blob]:
                self._close_blob()
        self._position += len(view)

    def bad(self) -> list[int]:
        """After the last byte: numbers of the blobs that are not what was stored."""
        return [*self._bad, *range(self._blob, len(self._ends))]

    def _close_blob(self) -> None:
        if self._hash.digest(DIGEST_SIZE) != self.directory.digests[self._blob].tobytes():
            self._bad.append(self._blob)
        self._hash = blake3()
        self._blob += 1
