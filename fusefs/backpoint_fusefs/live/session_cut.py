"""What of a session, disks aside, a commit stores: names and small files as they were at a cut.

`cuts/<number>/` holds copies of small files and a manifest of everything; it appears whole, when
the cut is complete. Another process reads it while the session goes on. Decides what is too large
to be kept; what a commit does with it is not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from backpoint_fusefs.file_names import file_name
from backpoint_fusefs.live.bounded_file import read_bounded
from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.node_tree import NODES_MAX

CUTS: Final = "cuts"
MANIFEST: Final = "manifest.json"
FILE_MAX: Final = 64 << 20
"""Bytes of a file that is kept; what a point can hold of one."""
_MANIFEST_MAX: Final = 256 << 20
_SNAPSHOT_FILE: Final = re.compile(r".*-(delta|sesparse|\d{6})\.vmdk", re.IGNORECASE | re.DOTALL)
_DESCRIPTOR: Final = re.compile(r"disk(\d{1,5})\.vmdk")


@dataclass(frozen=True)
class CutFile:
    """A file that was copied. path: below the session's folder, parts joined by `/`; bytes that
    are no UTF-8 are lone surrogates (`os.fsencode` gives them back). size: bytes."""

    path: str
    node: int
    size: int

    @property
    def point_name(self) -> str:
        """The name a point should keep, always UTF-8: one that the mount shows as this path."""
        raw = self.path.encode("utf-8", "surrogateescape")
        try:
            name = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")
        return name if file_name(name) == raw else raw.decode("utf-8", "replace")


@dataclass(frozen=True)
class CutDiskName:
    """A disk of the session. number: in the session's point and in `disks/`; path: as CutFile."""

    number: int
    path: str


@dataclass(frozen=True)
class LeftOut:
    """A file that was not copied, and why, for the user."""

    path: str
    size: int
    why: str


class CutFolder:
    """A complete cut, for whoever commits it: any process that may read the session's folder."""

    def __init__(self, session: Path, number: int) -> None:
        """session: the session's folder. Raises SessionDamaged, also where there is no such cut."""
        self.folder = session / CUTS / str(number)
        self.files, self.disks, self.left_out = _read_manifest(self.folder / MANIFEST)

    files: tuple[CutFile, ...]
    """By path; also the disks' descriptors, see `config_files`."""
    disks: tuple[CutDiskName, ...]
    """By number. A disk whose file the guest's host deleted is not among them."""
    left_out: tuple[LeftOut, ...]

    @property
    def config_files(self) -> tuple[CutFile, ...]:
        """The files a point keeps as its own: not `disk<N>.vmdk`, which every point is given."""
        numbers = {disk.number for disk in self.disks}
        return tuple(
            file
            for file in self.files
            if not ((match := _DESCRIPTOR.fullmatch(file.path)) and int(match[1]) in numbers)
        )

    @property
    def snapshot_files(self) -> tuple[str, ...]:
        """Paths of what a VMware snapshot keeps beside the disks: with any, the disks alone are
        not what the machine saw."""
        paths = [file.path for file in self.files] + [file.path for file in self.left_out]
        return tuple(sorted(path for path in paths if _SNAPSHOT_FILE.fullmatch(path)))

    def read(self, file: CutFile) -> bytes:
        """All bytes of a copy. Raises SessionDamaged, OSError."""
        data = read_bounded(self.folder / str(file.node), FILE_MAX)
        if len(data) != file.size:
            raise SessionDamaged(f"{self.folder}: the copy of {file.path!r} has another length")
        return data


def _read_manifest(
    path: Path,
) -> tuple[tuple[CutFile, ...], tuple[CutDiskName, ...], tuple[LeftOut, ...]]:
    try:
        fields = json.loads(read_bounded(path, _MANIFEST_MAX))
        files = tuple(CutFile(**_checked(row, CutFile)) for row in fields["files"])
        disks = tuple(CutDiskName(**_checked(row, CutDiskName)) for row in fields["disks"])
        left_out = tuple(LeftOut(**_checked(row, LeftOut)) for row in fields["left_out"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SessionDamaged(f"{path} is not what this program wrote") from None
    except OSError as error:
        raise SessionDamaged(f"{path}: {error.strerror}") from error
    if len(files) + len(disks) + len(left_out) > NODES_MAX:
        raise SessionDamaged(f"{path} lists more than a session can hold")
    return files, disks, left_out


_ROW_TYPES: Final[dict[type, dict[str, type]]] = {
    CutFile: {"path": str, "node": int, "size": int},
    CutDiskName: {"number": int, "path": str},
    LeftOut: {"path": str, "size": int, "why": str},
}


def _checked(row: object, kind: type) -> dict[str, Any]:
    types = _ROW_TYPES[kind]
    if not isinstance(row, dict):
        raise ValueError("a row is none")
    if row.keys() != types.keys() or any(type(row[name]) is not types[name] for name in types):
        raise ValueError("a row has the wrong shape")
    if any(type(value) is int and value < 0 for value in row.values()):
        raise ValueError("a negative number")
    return row


def encode_manifest(
    files: Sequence[CutFile], disks: Sequence[CutDiskName], left_out: Sequence[LeftOut]
) -> bytes:
    """What `CutFolder` reads."""
    rows: dict[str, Sequence[CutFile | CutDiskName | LeftOut]]
    rows = {"files": files, "disks": disks, "left_out": left_out}
    plain = {name: [asdict(row) for row in listed] for name, listed in rows.items()}
    return json.dumps(plain, indent=1).encode()
