"""What to write into /etc/exports where the kernel's NFS server shall serve a mount of ours.

Text only: nothing is started or changed.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from backpoint_fusefs.nfs.export_terms import ExportTerms
from backpoint_repo.errors import UsageError


def filesystem_id(repository_id: bytes) -> uuid.UUID:
    """The same for every mount of the repository: NFS clients know their files by it."""
    return uuid.uuid5(uuid.UUID(bytes=repository_id), "backpoint mount")


def exports_line(terms: ExportTerms, place: Path, repository_id: bytes) -> str:
    """One line of exports(5). place: where the repository is mounted. Raises UsageError."""
    access = "ro" if terms.read_only else "rw"
    fsid = filesystem_id(repository_id)
    options = f"{access},sync,no_root_squash,no_subtree_check,fsid={fsid}"
    clients = " ".join(f"{network}({options})" for network in terms.allowed)
    return f"{_escaped(place)} {clients}"


def exports_hints(terms: ExportTerms, place: Path) -> list[str]:
    """Comments for the same file: what else it takes."""
    live = "" if terms.read_only else " --live SESSIONS"
    return [
        f"# The mount, as root and before the server: backpoint mount --allow-others{live} {place}",
        "# After every change, and after each new mount at this place: exportfs -ra; exportfs -f",
        "# (rpc.mountd keeps what it knew of the mount before; fsid keeps clients' handles valid).",
        "# After a mount that died: restart the server. By that alone clients see that they must",
        "# write again what was not committed.",
        f"# Fixed ports, in /etc/nfs.conf: [nfsd] port={terms.nfs_port}, host={terms.address}; "
        f"[mountd] port={terms.mount_port}.",
        "# rpcbind must run for NFSv3, which ESXi and QEMU's nfs:// speak.",
    ]


def _escaped(path: Path) -> str:
    """As exports(5) wants blanks and specials: a backslash and three octal digits."""
    text = str(path)
    if not path.is_absolute() or "\n" in text or "\0" in text:
        raise UsageError(f"--at must be an absolute path: {path}")
    special = ' \t\\"#'
    return "".join(f"\\{ord(char):03o}" if char in special else char for char in text)
