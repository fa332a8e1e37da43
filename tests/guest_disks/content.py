"""The bytes that the files of a data disk are made of: some compress, some do not, some are zeros.

Decides content only, from a seed; knows no file names and no disks.
"""

from __future__ import annotations

import random

_POOL_BYTES = 4 << 20
_PAGE = 8192
_RECORD = 64


class Content:
    """A source of file contents; the same seed gives the same sequence."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._pool = self._prose(_POOL_BYTES)

    def text(self, length: int) -> bytes:
        """Prose that zstd shrinks to about a third."""
        parts: list[bytes] = []
        left = length
        while left > 0:
            # A piece from anywhere in the pool: no two files share an aligned block by accident.
            start = self._random.randrange(_POOL_BYTES - 1)
            piece = self._pool[start : start + min(left, 65536)]
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts)

    def log(self, length: int) -> bytes:
        """Lines with rising times and a few varying words."""
        lines: list[bytes] = []
        written, second = 0, self._random.randrange(1 << 30)
        while written < length:
            second += self._random.randrange(5)
            line = b"%d host%d service[%d]: request %x took %d ms\n" % (
                second,
                self._random.randrange(4),
                self._random.randrange(30000),
                self._random.getrandbits(64),
                self._random.randrange(900),
            )
            lines.append(line)
            written += len(line)
        return b"".join(lines)[:length]

    def noise(self, length: int) -> bytes:
        """Bytes that nothing can shrink, as in pictures and archives."""
        return self._random.randbytes(length)

    def program(self, length: int) -> bytes:
        """Half repeating records, half noise, as in executables."""
        head = self._random.randbytes(_RECORD // 2)
        noise = self._random.randbytes(length // 2 + _RECORD)
        half = _RECORD // 2
        rows = range(0, length // 2 + half, half)
        return b"".join(head + noise[row : row + half] for row in rows)[:length]

    def database(self, length: int) -> bytes:
        """Pages of 8 KiB: a number, some rows, then zeros; one page in five is empty."""
        pages: list[bytes] = []
        for number in range(-(-length // _PAGE)):
            if self._random.random() < 0.2:
                pages.append(bytes(_PAGE))
                continue
            rows = self.text(self._random.randrange(_PAGE // 4, _PAGE - 8))
            pages.append((number.to_bytes(8, "big") + rows).ljust(_PAGE, b"\0"))
        return b"".join(pages)[:length]

    def _prose(self, length: int) -> bytes:
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        weights = [1 / (rank + 1) for rank in range(len(letters))]
        words = [
            "".join(self._random.choices(letters, weights, k=self._random.randrange(2, 11)))
            for _ in range(4000)
        ]
        rarity = [1 / (rank + 3) for rank in range(len(words))]
        text = " ".join(self._random.choices(words, rarity, k=length // 4))
        return text.encode()[:length].ljust(length, b".")
