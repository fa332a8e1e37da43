"""The one request about a whole machine's disks: which volumes are there."""

from __future__ import annotations

from typing import Any

from backpoint_fusefs.guest.parsers.layout.find_volumes import find_volumes
from backpoint_fusefs.guest.volume_record import to_record
from backpoint_fusefs.guest.worker.channel_image import ChannelImage


def layout_methods(disks: list[ChannelImage]) -> dict[str, Any]:
    """`volumes`: a record of each."""

    def volumes() -> list[Any]:
        return [to_record(volume) for volume in find_volumes(disks)]

    return {"volumes": volumes}
