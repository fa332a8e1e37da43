"""What a filesystem, as its driver here serves it, can hold: which awkward cases are due on it.

Values only. A case that an ability promises and the driver refuses is an error, never a skip.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 1 << 30


@dataclass(frozen=True)
class Abilities:
    """owners: uids, gids and modes. raw_names: bytes that are not UTF-8. name_max: in bytes, or in
    UTF-16 units where names_utf16. forbidden: characters no name may have.

    big_sparse_size: 0 for none. time_step_ns: how fine times are. long_times: before 1970 and after
    2038; dos_times: from 1980 to 2107 only. unwritten: extents that fallocate reserves.
    xattr_space: bytes that one file's attributes may take together, with their names.
    many_links, many_entries: counts.
    """

    links: bool = True
    symlinks: bool = True
    symlink_max: int = 4095
    devices: bool = True
    xattrs: bool = True
    xattr_space: int = 3_000
    acls: bool = True
    owners: bool = True
    raw_names: bool = True
    sparse: bool = True
    unwritten: bool = True
    big_sparse_size: int = 5 * _GIB
    long_times: bool = True
    dos_times: bool = False
    time_step_ns: int = 1
    case_sensitive: bool = True
    name_max: int = 255
    names_utf16: bool = False
    forbidden: bytes = b""
    many_links: int = 10_000
    many_entries: int = 3_000
