"""Changed block tracking: how it is lost, how it lies, and how its answers look."""

from __future__ import annotations

from vcsim.controlled import Controlled


class Tracking(Controlled):
    """What QueryChangedDiskAreas says and does not say."""

    def reset_cbt(self, vm: str) -> None:
        """Lose the tracking data: earlier changeIds are unknown from now on."""
        self.control("reset_cbt", vm=vm)

    def crash(self, vm: str) -> None:
        """Power off hard, as by a host's crash: tracking is lost."""
        self.control("crash", vm=vm)

    def lie(
        self, vm: str, offset: int, length: int, key: int = 0, *, allocated: bool = False
    ) -> None:
        """Never report changes of these bytes made before the next snapshot.

        With `allocated`, answers to the changeId `*` do not report them either.
        """
        self.control("lie", vm=vm, offset=offset, length=length, key=key, allocated=allocated)

    def area_cap(self, areas: int) -> None:
        """At most so many areas in one answer (2000 unless told)."""
        self.control("area_cap", areas=areas)

    def granularity(self, size: int, *, unaligned: bool = False) -> None:
        """Report in units of `size` bytes (64 KiB unless told), a multiple of 512.

        `unaligned` areas begin and end at any multiple of 512.
        """
        self.control("granularity", size=size, unaligned=unaligned)

    def false_positives(self, every: int) -> None:
        """Report also every n-th unchanged unit; 0 is none."""
        self.control("false_positives", every=every)

    def wrong_areas(self, kind: str, *, count: int = 1, after: int = 0) -> None:
        """Garble QueryChangedDiskAreas, after `after` right answers.

        `kind`: discontinuous (another startOffset than asked), zero (length 0), negative (length
        < 0), short (the answer ends early and the next has length 0), endless (512 bytes an
        answer; give count=-1), beyond (an area behind the disk's end), outside (an area behind the
        answer's end), overlap (areas out of order that overlap).
        """
        self.control("wrong_areas", kind=kind, count=count, after=after)
