"""One qemu-nbd process that serves one image on a private socket.

Decides its command line. Refuses to know which image that is, whether it is read or written, and
how a child is watched and ended (`nbd_child`).

The child dies with us because it runs without `--persistent`: when our last connection closes, even
by SIGKILL, it ends itself. PR_SET_PDEATHSIG would tie it to the *thread* that opened the image, and
setting it takes a `preexec_fn`, which may deadlock in a threaded program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from backpoint_repo.source.nbd_child import NbdChild, require_program


class QemuNbdChild(NbdChild):
    """A running qemu-nbd. Its errors name the disk as `name`."""

    def __init__(
        self, name: str, folder: str, node: Mapping[str, object], options: Sequence[str]
    ) -> None:
        """Start it on the block node `node`, its socket in the private folder `folder`.

        Raises SourceError if it is not installed or does not start.
        """
        address = os.path.join(folder, "socket")
        program = require_program("qemu-nbd", name)
        command = [program, *options, f"--socket={address}", "json:" + json.dumps(node)]
        super().__init__(name, address, command, program="qemu-nbd")
