"""What is on a disk at the moment of a crash: a copy of an image taken while it is mounted.

Decides how the moment is caught: what the filesystem has handed to its device by then is there,
what it still keeps in memory is not, and no unmount has tidied up. A backup of a running machine is
such a copy. Which changes reach the disk, the callback decides by fsync and sync.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from guest_disks.tool import run
from guest_trees.disks import Kind, mounted_image


def crash_image(
    image: Path,
    kind: Kind,
    copy: Path,
    change: Callable[[Path], None],
    options: Iterable[str] = (),
) -> Path:
    """Mount `image`, let `change` do its work in the folder, and make `copy` of the image before
    it is unmounted; `copy`. The image itself ends unmounted in good order.

    options: of the mount; "commit=300" keeps ext4 from committing what nobody asked it to.
    """
    with mounted_image(image, kind, options=options) as folder:
        change(folder)
        # What the filesystem has written lies in the image's own pages: a loop device writes
        # through to them at once.
        run("cp", "--reflink=auto", "--sparse=always", image, copy)
    return copy


def settle(folder: Path) -> None:
    """Have everything so far written to its place, not to the journal alone.

    Freezing does what `sync` does not: it empties the journal, so what comes later stands alone
    in it.
    """
    run("fsfreeze", "--freeze", folder)
    run("fsfreeze", "--unfreeze", folder)


def write_durably(path: Path, content: bytes) -> None:
    """A file, on the disk together with its name: what a database does."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
