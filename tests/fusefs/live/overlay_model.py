"""What a disk of a session may show: each block's last synced content or any written later.

Plain bytes and lists; knows nothing of layers, logs or files.
"""

from __future__ import annotations

from backpoint_fusefs.live.overlay.block_set import BLOCK


class DiskModel:
    """content: what must be read while nothing crashes."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self._sizes = [len(content)]
        self._blocks: dict[int, set[bytes]] = {}
        """Of blocks changed since the last sync: all that they were since."""

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self._may_stay(min(offset, len(self.content)), end)
        self.content.extend(bytes(max(0, end - len(self.content))))
        self.content[offset:end] = data
        self._may_be(offset, end)

    def zero(self, offset: int, length: int) -> None:
        end = min(offset + length, len(self.content))
        if offset < end:
            self.write(offset, bytes(end - offset))

    def resize(self, size: int) -> None:
        low, high = sorted((size, len(self.content)))
        self._may_stay(low, high)
        for number, versions in self._blocks.items():
            versions |= {_cut(version, number, low) for version in versions}
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))
        self._may_be(low, high)

    def resized(self) -> None:
        """It returned: its size is durable, and nothing of what was behind it comes back."""
        self._sizes = [size := len(self.content)]
        for number, versions in self._blocks.items():
            self._blocks[number] = {_cut(version, number, size) for version in versions}

    def synced(self) -> None:
        self._sizes = [len(self.content)]
        self._blocks.clear()

    def failed(self, content: bytes) -> None:
        """What is read after something raised: it may have got anywhere on its way."""
        assert min(self._sizes) <= len(content) <= max(self._sizes)
        self._sizes.append(len(content))
        self.found(content)

    def found(self, content: bytes) -> None:
        """What is read after a crash."""
        assert len(content) in self._sizes, (len(content), self._sizes)
        end = max(len(content), len(self.content))
        for number in range(-(-end // BLOCK)):
            block = _block(content, number)
            allowed = self._blocks.get(number, set()) | {_block(self.content, number)}
            cut = {_cut(version, number, len(content)) for version in allowed}
            assert block in cut, f"block {number} is {_told(block)!r}, not {list(map(_told, cut))}"
            if block != _block(self.content, number):
                self._blocks[number] = allowed | {block}
        self.content = bytearray(content)

    def _may_stay(self, start: int, end: int) -> None:
        for number in range(start // BLOCK, -(-end // BLOCK)):
            self._blocks.setdefault(number, set()).add(_block(self.content, number))

    def _may_be(self, start: int, end: int) -> None:
        self._may_stay(start, end)
        self._sizes.append(len(self.content))


def _block(content: bytes | bytearray, number: int) -> bytes:
    return bytes(content[number * BLOCK : (number + 1) * BLOCK]).ljust(BLOCK, b"\0")


def _cut(version: bytes, number: int, size: int) -> bytes:
    """What is left of a block of a disk of this size."""
    return version[: max(0, size - number * BLOCK)].ljust(BLOCK, b"\0")


def _told(block: bytes) -> bytes:
    return block.strip(b"\0")[:40] or b"zeros"
