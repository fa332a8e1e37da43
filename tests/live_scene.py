"""A vCenter, a point of one of its VMs, and a real mount with live sessions that its hosts take for
an NFS export: what boots, migrations and ends in a vCenter are tried on.

Knows how it is looked at from outside; what must come of a command is the test's business.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backpoint_agent.effect import Effect
from backpoint_agent.ledger import Ledger
from backpoint_agent.live.nas_datastore import NasDatastore
from backpoint_agent.live.nas_mounting import read_nas_datastores
from backpoint_agent.machine import Machine
from backpoint_agent.vsphere.inventory import read_inventory
from command_line import CommandLine
from mortal_commands import End, Mortals, mortals
from small_repository import PASSPHRASE, assert_clean
from stored_vm import Scene, running_scene

HOST = "DC0_C0_H0"
DATASTORE = "backpoint-live"


@dataclass(frozen=True)
class LiveScene:
    """scene: vCenter, VM and point. place: of the mount. home: of its sessions. commands: with the
    variables."""

    scene: Scene
    place: Path
    home: Path
    variables: dict[str, str]
    commands: Mortals

    @property
    def line(self) -> CommandLine:
        """The installed command, for what is killed from outside."""
        return CommandLine(self.scene.folder, self.variables)

    @property
    def name(self) -> str:
        """The original VM's."""
        return self.scene.vm.machine.name

    def boot_words(self, *more: str) -> list[str]:
        return ["--json", "boot", self.name, "--vcenter", "--host", HOST, *more]

    def boot(self, *more: str) -> dict[str, Any]:
        """A VM of the point; the command's record."""
        return record_of(self.run(*self.boot_words(*more)))

    def run(self, *words: str, code: int = 0) -> End:
        """`backpoint` with these words, which must end so."""
        end = self.commands.run(*words)
        assert end.code == code, end
        assert "Traceback" not in end.err, end
        return end

    def machine(self, moref: str) -> Machine:
        return self.scene.machine(moref)

    def morefs(self) -> set[str]:
        return set(self.scene.simulator.vms())

    def datastores(self) -> list[NasDatastore]:
        """Ours, and any other NFS datastore."""
        return read_nas_datastores(self.scene.vcenter)

    def sessions(self) -> set[str]:
        """Folders that the mount shows."""
        return {path.name for path in (self.place / "live").iterdir()}

    def stored_sessions(self) -> set[str]:
        """Folders that are kept."""
        return {path.name for path in self.home.iterdir() if path.is_dir()}

    def effects(self) -> list[Effect]:
        with Ledger(self.scene.state.ledger) as ledger:
            assert ledger.damage() == []
            return ledger.open_effects()

    def assert_as_before(self, morefs: set[str], datastores: Sequence[str] = ()) -> None:
        """No VM more, no datastore of ours, no session, nothing open, a clean repository."""
        assert self.morefs() == morefs
        assert [datastore.name for datastore in self.datastores()] == list(datastores)
        assert self.stored_sessions() == set()
        assert self.sessions() == set()
        assert self.effects() == []
        assert_clean(self.scene.vm.repository)

    def inventory(self) -> list[Machine]:
        return list(read_inventory(self.scene.vcenter).machines)

    def settings_of(self, moref: str) -> dict[str, str]:
        """The VM's extraConfig."""
        return {o.key: str(o.value) for o in self.scene.config(moref).extraConfig}


def record_of(end: End) -> dict[str, Any]:
    """The one JSON record on stdout."""
    record = json.loads(end.out)
    assert isinstance(record, dict)
    return record


@contextmanager
def running_live_scene(folder: Path, guest_image: Path, live: str = "") -> Iterator[LiveScene]:
    """live: more lines of the configuration's [live]."""
    place, home = folder / "mount", folder / "sessions"
    place.mkdir()
    with running_scene(folder, guest_image) as scene:
        state = {"XDG_STATE_HOME": str(folder)}
        # With it a command needs no more words; the passphrase is in the configuration.
        variables = {**state, "BACKPOINT_CONFIG": str(_configure(scene, place, home, live))}
        repository = {"BACKPOINT_REPO": str(folder / "repository")}
        owner = {**state, **repository, "BACKPOINT_PASSPHRASE": PASSPHRASE.text}
        CommandLine(folder, owner).run("mount", "--live", home, place)
        try:
            with mortals(variables) as commands:
                yield LiveScene(scene, place, home, variables, commands)
        finally:
            done = subprocess.run(["umount", place], capture_output=True, check=False)
            if done.returncode != 0:
                subprocess.run(["umount", "--lazy", place], check=True)


def _configure(scene: Scene, place: Path, home: Path, live: str) -> Path:
    account = scene.settings.vcenters["dc1"]
    config = scene.folder / "backpoint.toml"
    config.write_text(
        f"""
state = "{scene.state.path}"
[repository]
path = "{scene.folder / "repository"}"
passphrase = {{ file = {json.dumps(str(scene.folder / "passphrase"))} }}
[vcenters.dc1]
address = "{account.address}"
user = "{account.user}"
password = {{ file = "{account.password.file}" }}
ca_file = "{account.ca_file}"
request_limit_s = 10
[waits]
machine_lock_s = 1
[live]
address = "127.0.0.1"
path = "{place}"
folder = "{place}"
sessions = "{home}"
{live}
"""
    )
    return config
