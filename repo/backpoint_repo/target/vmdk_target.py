"""A disk as VMware keeps it: `NAME.vmdk`, a short text, beside `NAME-flat.vmdk`, the raw disk.

Decides the two names and their order: the text, which makes a disk of the flat file, comes last.
What stands in it is for `vmdk_descriptor.py`. A size that is no multiple of 512 stays as it is.
"""

from __future__ import annotations

from pathlib import Path

from backpoint_repo.target.contract import Content
from backpoint_repo.target.raw_target import RawFileTarget, pwrite_all
from backpoint_repo.target.staged_file import StagedFile, refuse_existing
from backpoint_repo.vmdk_descriptor import describe_flat_disk

_SUFFIX = ".vmdk"


class VmdkTarget:
    """`ImageTarget` of a new flat vmdk. identity: as for `describe_flat_disk`."""

    def __init__(self, path: Path, size: int, identity: bytes) -> None:
        """`path` names the descriptor. Raises UsageError where either file exists, TargetError."""
        self._path = path
        flat_path = path.with_name(path.name.removesuffix(_SUFFIX) + "-flat" + _SUFFIX)
        self._text = describe_flat_disk(flat_path.name, size, identity)
        refuse_existing(path)
        self._flat = RawFileTarget(flat_path, size)

    def write_at(self, offset: int, data: Content) -> None:
        """Raises TargetError."""
        self._flat.write_at(offset, data)

    def zero_at(self, offset: int, length: int) -> None:
        """Nothing: the flat file began as one hole."""

    def finish(self) -> None:
        """Raises UsageError, TargetError."""
        descriptor = StagedFile(self._path)
        try:
            try:
                pwrite_all(descriptor.descriptor, 0, self._text)
            except OSError as error:
                raise descriptor.failed("write", error) from error
            self._flat.finish()
            try:
                descriptor.publish()
            except BaseException:
                self._flat.withdraw()
                raise
        finally:
            descriptor.discard()

    def abandon(self) -> None:
        """Remove the unfinished files."""
        self._flat.abandon()
