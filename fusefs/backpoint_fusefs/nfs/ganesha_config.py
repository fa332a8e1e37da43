"""NFS-Ganesha's configuration for one export: minimal, and all that is decided about protocol.

Knows the terms and two paths; nothing of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backpoint_fusefs.nfs.export_terms import PATH, ExportTerms

_EXPORT_ID: Final = 77
"""Part of every file handle: it never changes."""
_TRANSFER_MAX: Final = 1 << 20
"""Bytes of one READ or WRITE, as large as FUSE's requests."""
_RPC_MAX: Final = 9 << 20
_FRESH_S: Final = 1
"""For how long Ganesha trusts what it knows of a file: new points and sessions appear in seconds,
and a disk that is written through the mount has its size at once. What it asks again is answered
from the kernel's memory of the mount."""


def ganesha_config(terms: ExportTerms, mount: Path, state: Path, *, nfs3: bool) -> str:
    """mount: the folder to export. state: where Ganesha keeps what it knows of NFSv4 clients."""
    protocols = "3,4" if nfs3 else "4"
    access = "RO" if terms.read_only else "RW"
    clients = ", ".join(str(network) for network in terms.allowed)
    return f"""\
# Written by backpoint; changes are lost.
NFS_CORE_PARAM {{
    Protocols = {protocols};
    Bind_Addr = {terms.address};
    NFS_Port = {terms.nfs_port};
    MNT_Port = {terms.mount_port};
    mount_path_pseudo = true;
    Enable_UDP = false;
    # ESXi keeps its locks as files; Linux clients mount with nolock.
    Enable_NLM = false;
    Enable_RQUOTA = false;
    # ESXi takes handles of at most 56 bytes.
    Short_File_Handle = true;
    MaxRPCSendBufferSize = {_RPC_MAX};
    MaxRPCRecvBufferSize = {_RPC_MAX};
}}
NFSv4 {{
    # A client goes on at once after a restart; there are no locks of others to wait for.
    Graceless = true;
    RecoveryBackend = fs;
    RecoveryRoot = {_quoted(state)};
    Only_Numeric_Owners = true;
    Delegations = false;
}}
NFS_KRB5 {{
    Active_krb5 = false;
}}
EXPORT_DEFAULTS {{
    Access_Type = None;
    SecType = sys;
    # Who may use a client's machine says that he is root; only who is root there gets such a port.
    PrivilegedPort = true;
    Transports = TCP;
}}
EXPORT {{
    Export_Id = {_EXPORT_ID};
    Path = {_quoted(mount)};
    Pseudo = {PATH};
    Protocols = {protocols};
    # Whoever is not named below.
    Access_Type = None;
    # ESXi is root and writes as root.
    Squash = no_root_squash;
    Attr_Expiration_Time = {_FRESH_S};
    MaxRead = {_TRANSFER_MAX};
    MaxWrite = {_TRANSFER_MAX};
    PrefRead = {_TRANSFER_MAX};
    PrefWrite = {_TRANSFER_MAX};
    FSAL {{
        Name = VFS;
    }}
    CLIENT {{
        Clients = {clients};
        Access_Type = {access};
    }}
}}
"""


def _quoted(path: Path) -> str:
    text = str(path)
    # Ours, made of a fixed folder and hex digits; a quote in it would be a bug.
    assert text.isprintable()
    assert '"' not in text
    return f'"{text}"'
