"""A mount served by a child of this process, gone with it: for what needs a mount while it works.

Forks, so it must be called before this process has threads; the child has the opened repository
already and nobody is asked for a passphrase again.
"""

from __future__ import annotations

from backpoint_fusefs.mounting import MountPlan


class ServedMount:
    """A context manager; the mount is gone when it is left. Its child dies with its parent."""

    def __init__(self, plan: MountPlan, log: int) -> None:
        """Returns once the mount answers. log: descriptor for what it says. Raises what mounting
        raises."""
        raise NotImplementedError

    def __enter__(self) -> ServedMount:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pidfd(self) -> int:
        """To be waited for: readable when the mount's process has ended."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        raise NotImplementedError

    def end(self) -> None:
        """Unmount and wait; lazily where files are open. Harmless when repeated."""
        raise NotImplementedError
