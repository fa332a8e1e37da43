"""How clients mount a running export: the lines a user copies.

Text only.
"""

from __future__ import annotations

from collections.abc import Sequence

from backpoint_fusefs.nfs.export_terms import NFS_PORT, PATH, ExportTerms


def client_commands(terms: ExportTerms, versions: Sequence[int]) -> list[tuple[str, str]]:
    """(for what, the command), in the order a user reads them. versions: of NFS that are served."""
    host = "ADDRESS" if terms.address.is_unspecified else str(terms.address)
    port = "" if terms.nfs_port == NFS_PORT else f",port={terms.nfs_port}"
    found = [("Linux", f"mount -t nfs -o vers=4.2{port} {host}:{PATH} /mnt")]
    if 3 not in versions:
        return found
    old = f"mount -t nfs -o vers=3,nolock,tcp,port={terms.nfs_port},mountport={terms.mount_port}"
    found.append(("Linux, NFSv3", f"{old} {host}:{PATH} /mnt"))
    if terms.nfs_port == NFS_PORT and not terms.address.is_loopback:
        found.append(("ESXi", f"esxcli storage nfs add -H {host} -s {PATH} -v backpoint"))
    # Other clients write again what a server that died had not committed; libnfs does not, and the
    # guest would be told that it is on the disk.
    drive = f"-drive file=nfs://{host}{PATH}/...-flat.vmdk,format=raw,cache=writethrough"
    found.append(("QEMU", drive))
    return found
