"""How many parser processes there are, and how long an idle one is kept.

Decides which one has to go when another is needed. Knows no filesystem.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from backpoint_fusefs.guest.guest_volume import GuestVolume
from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_reader import VolumeReader
from backpoint_fusefs.guest.worker.parser_process import Allowance, ParserProcess

PROCESSES_MAX: Final = 12
"""30 to 80 MB each."""
IDLE_S: Final = 60.0


class ParserPool:
    """Thread-safe. streams: large alternate streams are shown as files."""

    def __init__(
        self,
        *,
        streams: bool = False,
        allowance: Allowance | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams = streams
        self._allowance = allowance
        self._clock = clock
        self._lock = threading.Lock()
        self._volumes: list[GuestVolume] = []

    def volume(self, volume: Volume, reader: VolumeReader) -> GuestVolume:
        """Its process is started when it is first asked something."""
        made = GuestVolume(volume, reader, self._start, self._clock)
        with self._lock:
            self._volumes.append(made)
        return made

    def end_idle(self) -> None:
        """End the processes that nobody has asked anything for a while."""
        for volume in self._running():
            if self._clock() - volume.used_at > IDLE_S:
                volume.end_if_idle()

    def forget(self, volume: GuestVolume) -> None:
        """End its process; it will not be asked again."""
        with self._lock:
            self._volumes.remove(volume)
        volume.retire()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            volumes, self._volumes = self._volumes, []
        for volume in volumes:
            volume.retire()

    def _start(self, volume: Volume, reader: VolumeReader) -> ParserProcess:
        running = self._running()
        for other in running[: max(0, len(running) + 1 - PROCESSES_MAX)]:
            other.end_if_idle()
        return ParserProcess(
            volume.kind, [reader], streams=self._streams, allowance=self._allowance
        )

    def _running(self) -> list[GuestVolume]:
        """The one that was used longest ago comes first."""
        with self._lock:
            running = [volume for volume in self._volumes if volume.running]
        return sorted(running, key=lambda volume: volume.used_at)
