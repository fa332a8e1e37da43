"""Lines for the kernel's NFS server."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.nfs.export_terms import plan_terms
from backpoint_fusefs.nfs.kernel_exports import exports_hints, exports_line, filesystem_id
from backpoint_repo.errors import UsageError

_ID = bytes(range(16))
_NAMES = st.text(st.characters(exclude_characters="/\n\0", codec="utf-8"), min_size=1)


def _parsed(line: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """As exports(5) has it: fields between blanks, octal escapes in the path."""
    path, *clients = line.split(" ")
    path = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)
    found = [re.fullmatch(r"([0-9./]+)\(([^()]+)\)", client) for client in clients]
    return path, [(match[1], match[2].split(",")) for match in found if match is not None]


@given(st.lists(_NAMES, min_size=1))
def test_any_place_is_written_so_that_it_is_read_back(names: list[str]) -> None:
    """Blanks, quotes, backslashes and marks of comments included; it stays one line."""
    place = Path("/", *names)
    line = exports_line(plan_terms("10.0.0.1", ["10.0.0.2", "10.1.0.0/16"]), place, _ID)
    path, clients = _parsed(line)
    assert path == str(place)
    assert [client for client, _ in clients] == ["10.0.0.2/32", "10.1.0.0/16"]
    assert "\n" not in line
    assert "#" not in line


@pytest.mark.parametrize("read_only", [True, False])
def test_every_client_gets_what_esxi_needs(read_only: bool) -> None:
    """Root stays root, writes are durable, handles keep their meaning."""
    terms = plan_terms("10.0.0.1", ["10.0.0.2"], read_only=read_only)
    ((_, options),) = _parsed(exports_line(terms, Path("/mnt/x"), _ID))[1]
    fsid = f"fsid={filesystem_id(_ID)}"
    assert set(options) == {
        "ro" if read_only else "rw",
        "sync",
        "no_root_squash",
        "no_subtree_check",
        fsid,
    }


def test_the_filesystems_id_is_the_repositorys() -> None:
    """The same in every mount, another for every repository, and not the repository's own id."""
    assert filesystem_id(_ID) == filesystem_id(bytes(_ID))
    assert filesystem_id(_ID) != filesystem_id(bytes(16))
    assert filesystem_id(_ID) != uuid.UUID(bytes=_ID)


def test_hints_are_comments() -> None:
    """All that is printed can go into the file."""
    hints = exports_hints(plan_terms("10.0.0.1", ["10.0.0.2"]), Path("/mnt/x"))
    assert all(hint.startswith("#") for hint in hints)


@pytest.mark.parametrize("place", ["mnt/x", "/mnt/a\nb"])
def test_places_that_no_line_can_hold_are_refused(place: str) -> None:
    """A relative path means nothing to the server; a newline would begin another line."""
    with pytest.raises(UsageError, match="--at"):
        exports_line(plan_terms(None, []), Path(place), _ID)
