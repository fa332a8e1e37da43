"""The VMs' disks and guests, as the guests themselves and an administrator change them."""

from __future__ import annotations

import base64
from pathlib import Path

from vcsim.controlled import Controlled

WRITE_SIZE = 1 << 20


class Disks(Controlled):
    """A disk is named by its device key, 0 being the VM's first disk."""

    def attach(self, vm: str, image: Path, key: int = 0) -> Path:
        """Make the disk's content a sparse copy of `image`, its capacity with it; `live_disk`."""
        return Path(self.control("attach", vm=vm, image=str(image), key=key)["path"])

    def live_disk(self, vm: str, key: int = 0) -> Path:
        """The file that the guest writes now; a snapshot or its removal makes it another."""
        return Path(self.control("live", vm=vm, key=key)["path"])

    def write(self, vm: str, offset: int, data: bytes, key: int = 0) -> None:
        """Write as the guest would; each MiB is either before or after any snapshot."""
        for at in range(0, len(data), WRITE_SIZE):
            part = base64.b64encode(data[at : at + WRITE_SIZE]).decode()
            self.control("write", vm=vm, key=key, offset=offset + at, data=part)

    def add_disk(
        self,
        vm: str,
        content: int | Path,
        *,
        mode: str = "persistent",
        kind: str = "flat",
        sharing: str = "",
        encrypted: bool = False,
    ) -> int:
        """Add a disk of `content` bytes, or a copy of the image `content`; its key.

        `mode` is a VirtualDiskMode; `kind` flat, rdm-physical or rdm-virtual; `sharing` "",
        multiwriter (the disk) or bus (a new controller with a physically shared bus).
        """
        size, image = (content, "") if isinstance(content, int) else (0, str(content))
        fields = {"mode": mode, "kind": kind, "sharing": sharing, "encrypted": encrypted}
        return int(self.control("add_disk", vm=vm, size=size, image=image, **fields)["key"])

    def remove_disk(self, vm: str, key: int) -> None:
        """Take the disk out of the VM and delete its files."""
        self.control("remove_disk", vm=vm, key=key)

    def swap_disks(self, vm: str, key: int, other: int) -> None:
        """Let two disks exchange their device keys."""
        self.control("swap_disks", vm=vm, key=key, other=other)

    def extend(self, vm: str, size: int, key: int = 0) -> None:
        """Make the disk `size` bytes; the new end is a hole."""
        self.control("extend", vm=vm, size=size, key=key)

    def orphan_delta(self, vm: str) -> None:
        """Let the VM run on a delta disk without any snapshot, needing consolidation."""
        self.control("orphan_delta", vm=vm)

    def leave_delta(self, vm: str, count: int = 1) -> None:
        """Let the next removals of a snapshot leave its delta disk, needing consolidation."""
        self.control("leave_delta", vm=vm, count=count)

    def connection_state(self, vm: str, state: str) -> None:
        """`connected`, or what keeps the VM from being backed up, such as `inaccessible`."""
        self.control("connection", vm=vm, state=state)

    def proxy(self, vm: str) -> None:
        """Disks attached to this VM from now on appear in `hotadd_folder`."""
        self.control("proxy", vm=vm)

    def stun(self, vm: str, microseconds: int) -> None:
        """What `vmware.log` says for how long each snapshot operation stops the VM."""
        self.control("stun", vm=vm, microseconds=microseconds)

    def guest(
        self,
        vm: str,
        *,
        tools: bool = True,
        user: str = "backup",
        password: str = "Guest-secret-1",
    ) -> None:
        """Whether the guest's tools run, and who may run programs there."""
        self.control("guest", vm=vm, tools=tools, user=user, password=password)

    def guest_program(self, vm: str, path: str, *, exit_code: int = 0, seconds: float = 0) -> None:
        """What running `path` in the guest gives, and for how long it runs (-1: until ended)."""
        self.control("guest_program", vm=vm, path=path, exit_code=exit_code, seconds=seconds)
