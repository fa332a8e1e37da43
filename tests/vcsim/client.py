"""The simulator seen by its users' eyes: pyvmomi and HTTPS, short enough for tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import urllib3
from pyVmomi import vim

from vcsim.simulator import Simulator

DEADLINE_S = 20

Areas = list[tuple[int, int]]


@dataclass(frozen=True)
class Client:
    """One session of pyvmomi and its cookie for files."""

    simulator: Simulator
    instance: Any
    pool: urllib3.PoolManager

    @property
    def content(self) -> Any:
        return self.instance.content

    @property
    def datacenter(self) -> Any:
        return self.content.rootFolder.childEntity[0]

    @property
    def cluster(self) -> Any:
        return self.datacenter.hostFolder.childEntity[0]

    def vm(self, number: int = 0) -> Any:
        """The VM of this place in `Simulator.vms`."""
        return vim.VirtualMachine(self.simulator.vms()[number], self.instance._stub)

    def request(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        """One HTTPS request with the session's cookie, of a path or a whole URL."""
        headers = {"Cookie": self.instance._stub.cookie.split(";")[0]}
        headers |= options.pop("headers", {})
        url = path if path.startswith("https:") else self.simulator.url + path
        return self.pool.request(method, url, headers=headers, retries=False, **options)

    def read(self, datastore_path: str, offset: int, length: int) -> urllib3.BaseHTTPResponse:
        """A range of a file in a datastore."""
        return self.request("GET", folder(datastore_path), headers=byte_range(offset, length))


@contextlib.contextmanager
def connected(simulator: Simulator) -> Iterator[Client]:
    with simulator.connect() as instance:
        pool = urllib3.PoolManager(ca_certs=str(simulator.ca_file))
        try:
            yield Client(simulator, instance, pool)
        finally:
            pool.clear()


def folder(datastore_path: str) -> str:
    """The /folder address of `[datastore] path`."""
    datastore, path = datastore_path[1:].split("] ")
    return f"/folder/{path}?dcPath=DC0&dsName={datastore}"


def byte_range(offset: int, length: int) -> dict[str, str]:
    return {"Range": f"bytes={offset}-{offset + length - 1}"}


def until(condition: Callable[[], Any]) -> Any:
    """Poll until the condition holds; its value."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    return value


def done(task: Any) -> Any:
    """The task's result; its fault is raised."""
    until(lambda: task.info.state in ("success", "error"))
    if task.info.state == "error":
        raise task.info.error
    return task.info.result


def snapshot(vm: Any, *, quiesce: bool = False) -> Any:
    return done(vm.CreateSnapshot_Task("backup", "of a test", False, quiesce))


def drop(point: Any) -> None:
    done(point.RemoveSnapshot_Task(False))


def disks(config: Any) -> list[Any]:
    """The disks of a VM's or a snapshot's configuration."""
    return [d for d in config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]


def flat(disk: Any) -> str:
    """The datastore path of the disk's content."""
    return str(disk.backing.fileName).replace(".vmdk", "-flat.vmdk")


def track(vm: Any) -> None:
    """Turn changed block tracking on."""
    done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))


def change_id(point: Any) -> str:
    return str(disks(point.config)[0].backing.changeId)


def changes(vm: Any, point: Any, since: str) -> tuple[Areas, int]:
    """All changed areas of the first disk, and in how many answers they came."""
    disk = disks(point.config)[0]
    areas: Areas = []
    offset = answers = 0
    while offset < disk.capacityInBytes:
        answer = vm.QueryChangedDiskAreas(point, disk.key, offset, since)
        assert answer.startOffset == offset
        assert answer.length > 0
        areas += [(a.start, a.length) for a in answer.changedArea]
        offset, answers = answer.startOffset + answer.length, answers + 1
    return areas, answers


def covers(areas: Areas, offset: int, length: int) -> bool:
    return any(start <= offset and offset + length <= start + size for start, size in areas)
