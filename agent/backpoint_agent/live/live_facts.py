"""What the ledger keeps of a VM that runs from a session, and how far it has come.

Decides the states of its life: `starting` until it is whole, `running`, then `ending` or
`migrating`. One entry stands for session and VM together, so that there is no moment at which one
of them is wanted and the other a leftover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

from backpoint_agent.effect import LIVE_STATE
from backpoint_agent.live.nas_datastore import Remote

State = Literal["starting", "running", "ending", "migrating"]
_STATES: Final = frozenset(get_args(State))


@dataclass(frozen=True)
class LiveFacts:
    """session: its name; repository, home: where it is. name, folder: the VM's, folder as an
    inventory path. datacenter: moref. datastore: name; address, path: its export. vmx:
    "[datastore] session/name.vmx". moref: the VM's once known. target: of a migration."""

    session: str
    repository: str
    home: str
    name: str
    folder: str
    datacenter: str
    datastore: str
    address: str
    path: str
    vmx: str
    state: State = "starting"
    moref: str = ""
    target: str = ""

    @property
    def remote(self) -> Remote:
        return Remote(self.address, self.path)

    def facts(self) -> dict[str, str]:
        """For the ledger."""
        return asdict(self)

    def moved_to(self, state: State) -> LiveFacts:
        return replace(self, state=state)


def live_facts(facts: Mapping[str, str]) -> LiveFacts:
    """Out of the ledger; what an entry lacks is empty, so that it proves nothing."""
    values: dict[str, Any] = {
        name: facts.get(name, "") for name in LiveFacts.__dataclass_fields__ if name != LIVE_STATE
    }
    state: Any = facts.get(LIVE_STATE, "starting")
    return LiveFacts(**values, state=state if state in _STATES else "running")


@dataclass(frozen=True)
class DatastoreFacts:
    """Of a mount that a boot asked for. host: moref."""

    datastore: str
    address: str
    path: str
    host: str

    @property
    def remote(self) -> Remote:
        return Remote(self.address, self.path)

    def facts(self) -> dict[str, str]:
        """For the ledger."""
        return asdict(self)


def datastore_facts(facts: Mapping[str, str]) -> DatastoreFacts:
    """Out of the ledger."""
    return DatastoreFacts(*(facts.get(n, "") for n in DatastoreFacts.__dataclass_fields__))
