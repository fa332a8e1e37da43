"""Reads, mounts and unmounts NFS datastores. Decides nothing about them."""

from __future__ import annotations

from typing import Any, Final

from pyVmomi import vim

from backpoint_agent.errors import ObjectGone
from backpoint_agent.inventory_names import unescape
from backpoint_agent.live.nas_datastore import NasDatastore, Remote
from backpoint_agent.vsphere.disk_facts import text_of
from backpoint_agent.vsphere.property_sweep import Swept, reference_of, sweep_below
from backpoint_agent.vsphere.vcenter import VCenter

_ASKED: Final = {"Datastore": ("name", "info", "host", "vm", "summary.accessible")}
_MANY: Final = 65_536


def read_nas_datastores(vcenter: VCenter) -> list[NasDatastore]:
    """All NFS datastores, in one sweep. Raises as `VCenter.call`."""
    swept = vcenter.call(
        "reading the datastores", lambda: list(sweep_below(vcenter.content, _ASKED))
    )
    found = [_nas(item) for item in swept]
    return [datastore for datastore in found if datastore is not None]


def mount_datastore(vcenter: VCenter, host: str, name: str, remote: Remote) -> str:
    """The new datastore's moref. Raises as `VCenter.call`."""
    spec = vim.host.NasVolume.Specification(
        remoteHost=remote.address,
        remotePath=remote.path,
        localPath=name,
        accessMode="readWrite",
        type="NFS",
    )
    system = _datastore_system(vcenter, host)
    made = vcenter.call(
        f"mounting {remote} as {name}", lambda: system.CreateNasDatastore(spec), repeat=False
    )
    return reference_of(made)


def unmount_datastore(vcenter: VCenter, host: str, datastore: NasDatastore) -> None:
    """From one host; harmless where it is gone. Raises Busy where it is in use, and as `call`."""
    system = _datastore_system(vcenter, host)
    managed = vcenter.object("Datastore", datastore.moref)
    try:
        vcenter.call(
            f"unmounting {datastore.name}",
            lambda: system.RemoveDatastore(managed),
            repeat=False,
        )
    except ObjectGone:
        return


def _datastore_system(vcenter: VCenter, host: str) -> Any:
    managed = vcenter.object("HostSystem", host)
    return vcenter.call(
        "looking for the host's datastores", lambda: managed.configManager.datastoreSystem
    )


def _nas(item: Swept) -> NasDatastore | None:
    get = item.properties.get
    volume = getattr(get("info"), "nas", None)
    if volume is None:
        return None
    mounts = [m for m in (get("host") or ())[:_MANY] if m.mountInfo.mounted is not False]
    return NasDatastore(
        item.moref,
        unescape(text_of(get("name"))),
        Remote(text_of(volume.remoteHost), text_of(volume.remotePath)),
        frozenset(reference_of(mount.key) for mount in mounts),
        frozenset(reference_of(m.key) for m in mounts if m.mountInfo.accessMode == "readOnly"),
        frozenset(reference_of(vm) for vm in (get("vm") or ())[:_MANY]),
        get("summary.accessible") is True,
    )
