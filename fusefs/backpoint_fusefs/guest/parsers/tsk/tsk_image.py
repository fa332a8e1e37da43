"""A volume as The Sleuth Kit reads it, and its failures as what they are.

The Sleuth Kit turns whatever goes wrong below it into a vague error of its own, so what a read
raised is kept here and raised again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytsk3

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeImage


class TskImage(pytsk3.Img_Info):  # type: ignore[misc]
    def __init__(self, image: VolumeImage) -> None:
        self._image = image
        self._failure: BaseException | None = None
        super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

    def get_size(self) -> int:
        return self._image.size

    def read(self, offset: int, length: int) -> bytes:
        # Nothing may pass through C but as its return value; `failures` raises it again.
        try:
            return self._image.read(offset, length)
        except BaseException as error:
            self._failure = error
            raise

    def close(self) -> None:
        """Whose image it is closes it."""

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Around every call of the library: its errors are damage, unless reading failed."""
        self._failure = None
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure from error
            raise GuestDamaged(_sentence(error)) from error
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def open_tsk_filesystem(tsk_image: TskImage, kind: int) -> Any:
    """kind: one of the library's TSK_FS_TYPE_*: to find it out costs 403 reads."""
    with tsk_image.failures():
        return pytsk3.FS_Info(tsk_image, 0, kind)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or "The Sleuth Kit cannot read this"
