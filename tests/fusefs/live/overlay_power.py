"""A folder whose power can be cut: before any system call that changes it, in any way that is left.

The calls are real and watched: what was flushed is kept aside. A cut then makes another folder, of
what a disk may have after it: files flushed last plus any of the pages written since, names as
after the last flush of the folder or after any of the changes since. A kill keeps all.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from backpoint_fusefs.live.overlay import data_file

_PAGE = 4096
_SECTOR = 512


class PowerCut(BaseException):
    """The process is gone: nothing may catch this and go on."""


class Libc(Protocol):
    """What of the C library changes files."""

    def fallocate(self, descriptor: int, mode: int, offset: Any, length: Any) -> int: ...


class PoweredFolder:
    """Use `watched`. `path` is the folder; after `restart` another one."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self._home = home
        self._count = 0
        self._left: int | None = None
        """System calls until the cut."""
        self._dead = False
        self._partial: Callable[[int], int] = lambda pages: 0
        self._begin({})
        self._patch_all(patch)

    def cut_after(self, calls: int, partial: random.Random) -> None:
        """Let so many more calls through; of the next one at most a part."""
        self._left = calls
        self._partial = lambda pages: partial.randrange(pages + 1)

    def go_on(self) -> None:
        """No cut is wanted any more."""
        self._left = None

    def restart(self, *, power: bool, chance: random.Random) -> None:
        """`path` is what is there afterwards. power: it was cut, else the process was killed, and
        what it did is there but no more durable than before."""
        self._dead, self._left = False, None
        if not power:
            return
        names = chance.choice(self._listings)
        contents = {name: self._after(file, name, chance) for name, file in names.items()}
        self._begin(contents)

    def _begin(self, contents: dict[str, bytes]) -> None:
        self._count += 1
        self.path = self._home / f"{self._count}"
        self.path.mkdir()
        for name, content in contents.items():
            (self.path / name).write_bytes(content)
        self._serial = 0
        self._files: dict[int, int] = {}
        """inode -> our number of the file: inodes are used again."""
        self._flushed: dict[int, bytes] = {}
        self._gone: dict[int, bytes] = {}
        for name, content in contents.items():
            self._flushed[self._new(self.path / name)] = content
        self._listings = [self._listing()]

    def _new(self, path: Path) -> int:
        self._serial += 1
        self._files[path.stat().st_ino] = self._serial
        return self._serial

    def _listing(self) -> dict[str, int]:
        return {path.name: self._files[path.stat().st_ino] for path in self.path.iterdir()}

    def _after(self, file: int, name: str, chance: random.Random) -> bytes:
        paths = [path for path in self.path.iterdir() if self._files[path.stat().st_ino] == file]
        now = paths[0].read_bytes() if paths else self._gone[file]
        flushed = self._flushed.get(file, b"")
        length = chance.choice([len(now), len(flushed)])
        unit = _SECTOR if name.endswith(".log") else _PAGE
        both = [content.ljust(length, b"\0")[:length] for content in (now, flushed)]
        some = chance.choice([0.0, 1.0, chance.random()])
        units = range(0, length, unit)
        return b"".join(both[chance.random() < some][at : at + unit] for at in units)

    def _ours(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        return found.st_ino in self._files or (
            stat.S_ISDIR(found.st_mode) and found.st_ino == self.path.stat().st_ino
        )

    def _call(self) -> bool:
        """Whether the power is cut in this call. Raises where it was before."""
        if self._dead:
            raise PowerCut
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0

    def _die(self) -> None:
        self._dead = True
        raise PowerCut

    def _patch_all(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("pwrite", "pwritev"):
            patch.setattr(os, name, self._writer(getattr(os, name), vector=name == "pwritev"))
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._flusher(getattr(os, name)))
        for name in ("rename", "unlink"):
            patch.setattr(os, name, self._namer(getattr(os, name)))
        patch.setattr(os, "open", self._opener(os.open))
        patch.setattr(os, "ftruncate", self._changer(os.ftruncate))
        patch.setattr(data_file, "_LIBC", _Libc(self, data_file._LIBC))

    def _writer(self, real: Any, *, vector: bool) -> Any:
        def write(descriptor: int, data: Any, offset: int, *flags: int) -> int:
            if self._ours(descriptor) and self._call():
                whole = b"".join(data) if vector else bytes(data)
                # The kernel stops between two pages of the file only.
                within = offset % _PAGE
                pages = -(-(within + len(whole)) // _PAGE)
                done = max(0, self._partial(pages) * _PAGE - within)
                os_pwrite(descriptor, whole[:done], offset)
                self._die()
            return int(real(descriptor, data, offset, *flags))

        os_pwrite = real if not vector else lambda fd, data, offset: real(fd, [data], offset)
        return write

    def _flusher(self, real: Any) -> Any:
        def flush(descriptor: int) -> None:
            if not self._ours(descriptor):
                return
            if self._call():
                self._die()
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                self._listings = [self._listing()]
            else:
                file = self._files[found.st_ino]
                self._flushed[file] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

        # Nothing is really flushed: the machine stays up, and it takes its time.
        return flush

    def _namer(self, real: Any) -> Any:
        def name(path: Any, *more: Any, **options: Any) -> None:
            lost = Path(more[0] if more else path)
            if lost.parent == self.path:
                if self._call():
                    self._die()
                if lost.exists():
                    self._gone[self._files[lost.stat().st_ino]] = lost.read_bytes()
            real(path, *more, **options)
            if lost.parent == self.path:
                self._listings.append(self._listing())

        return name

    def _opener(self, real: Any) -> Any:
        def open_(path: Any, flags: int, *more: Any, **options: Any) -> int:
            ours = bool(flags & os.O_CREAT) and Path(path).parent == self.path
            is_new = ours and not Path(path).exists()
            if ours and self._call():
                self._die()
            descriptor = int(real(path, flags, *more, **options))
            if is_new:
                self._new(Path(path))
                self._listings.append(self._listing())
            return descriptor

        return open_

    def _changer(self, real: Any) -> Any:
        def change(descriptor: int, *rest: Any) -> Any:
            if self._ours(descriptor) and self._call():
                self._die()
            return real(descriptor, *rest)

        return change


class _Libc:
    def __init__(self, folder: PoweredFolder, real: Libc) -> None:
        self.fallocate = folder._changer(real.fallocate)


@contextmanager
def watched(home: Path, kind: type[PoweredFolder] = PoweredFolder) -> Iterator[PoweredFolder]:
    with pytest.MonkeyPatch.context() as patch:
        yield kind(home, patch)
