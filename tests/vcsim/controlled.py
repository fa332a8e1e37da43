"""What all parts of the simulator's controller stand on: a request that is answered."""

from __future__ import annotations

from typing import Any

from vcsim.process import Process

FOREVER = -1


class Controlled:
    """Something that can be asked of the simulator's process."""

    _process: Process

    def control(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask the simulator for something that has no method; SimulatorError if refused."""
        return self._process.ask({"op": op, **fields})
