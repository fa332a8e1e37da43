"""What the kernel must not believe any longer when the listing of points has changed."""

from __future__ import annotations

import pyfuse3
from pyfuse3 import FileNameT, InodeT

from backpoint_fusefs import inodes
from backpoint_fusefs.listing import changed_names, changed_vms
from backpoint_fusefs.tree import Tree


def tell_kernel(before: Tree, after: Tree) -> None:
    """New points are seen at once, and removed ones no longer."""
    changed = {InodeT(inodes.VMS), InodeT(inodes.BY_DATE)}
    for vm in changed_vms(before.listing, after.listing):
        folder = inodes.Number(inodes.vm_prefix(vm), inodes.VM_FOLDER).inode
        latest = inodes.Number(inodes.vm_prefix(vm), inodes.VM_LATEST).inode
        changed |= {InodeT(folder), InodeT(latest)}
        for name in changed_names(before.listing, after.listing, vm):
            pyfuse3.invalidate_entry_async(InodeT(folder), FileNameT(name), ignore_enoent=True)
    for inode in changed:
        try:
            pyfuse3.invalidate_inode(inode, attr_only=True)
        except OSError:
            continue  # the kernel does not know it
