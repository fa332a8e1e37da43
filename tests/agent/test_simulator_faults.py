"""What a test can let go wrong in the simulator's vCenter and network does go wrong, as asked."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pyVmomi import vim, vmodl

from vcsim import Simulator, SimulatorError, running_simulator
from vcsim.client import (
    Client,
    connected,
    disks,
    done,
    drop,
    folder,
    snapshot,
    until,
)

MIB = 1 << 20


@pytest.fixture
def client(simulator: Simulator) -> Iterator[Client]:
    with connected(simulator) as session:
        yield session


def test_fault_of_a_task(client: Client) -> None:
    """A task fails with the fault, its properties and message, so often, after so many."""
    vm, other = client.vm(0), client.vm(1)
    method = "CreateSnapshot_Task"
    client.simulator.fault(
        method, "FileLocked", vm=vm._moId, message="locked by a test", after=1, file="[x] y.vmdk"
    )
    drop(snapshot(vm))
    task = vm.CreateSnapshot_Task("one", "", False, False)
    with pytest.raises(vim.fault.FileLocked) as caught:
        done(task)
    assert caught.value.file == "[x] y.vmdk"
    assert task.info.error.msg == "locked by a test"
    assert task.info.entity._moId == vm._moId
    drop(snapshot(other))
    drop(snapshot(vm))


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("CreateSnapshot_Task", "ApplicationQuiesceFault"),
        ("CreateSnapshot_Task", "TooManySnapshotLevels"),
        ("CreateSnapshot_Task", "SnapshotFault"),
        ("ConsolidateVMDisks_Task", "FileLocked"),
        ("RelocateVM_Task", "Timedout"),
    ],
)
def test_faults_by_name(client: Client, method: str, fault: str) -> None:
    """Faults of vim are known by their names."""
    vm = client.vm()
    client.simulator.fault(method, fault)
    arguments = {
        "CreateSnapshot_Task": ("one", "", False, False),
        "RelocateVM_Task": (vim.vm.RelocateSpec(),),
    }.get(method, ())
    with pytest.raises(getattr(vim.fault, fault)):
        done(getattr(vm, method)(*arguments))


def test_fault_of_a_call(client: Client) -> None:
    """A call fails at once; unknown faults are refused."""
    vm = client.vm()
    client.simulator.fault("CreateSnapshot_Task", "TaskInProgress", soap=True)
    with pytest.raises(vim.fault.TaskInProgress):
        vm.CreateSnapshot_Task("one", "", False, False)
    with pytest.raises(SimulatorError, match="no such fault"):
        client.simulator.fault("CreateSnapshot_Task", "NoSuchFault")


def test_privileges(client: Client) -> None:
    """What needs a privilege that was taken names it; the authorization manager agrees."""
    vm = client.vm()
    privilege = "VirtualMachine.State.CreateSnapshot"
    manager = client.content.authorizationManager

    def granted() -> bool:
        answer = manager.HasPrivilegeOnEntities([vm], "session", [privilege])
        return bool(answer[0].privAvailability[0].isGranted)

    assert granted()
    client.simulator.refuse_privilege(privilege)
    assert not granted()
    with pytest.raises(vim.fault.NoPermission) as caught:
        vm.CreateSnapshot_Task("one", "", False, False)
    assert caught.value.privilegeId == privilege
    client.simulator.refuse_privilege("VirtualMachine.Config.ChangeTracking")
    with pytest.raises(vim.fault.NoPermission):
        vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True))
    client.simulator.refuse_privilege(privilege, refused=False)
    drop(snapshot(vm))


def test_slow_and_cancelled_tasks(client: Client) -> None:
    """A task runs before it takes effect; cancelled meanwhile it has none; released, it has."""
    vm = client.vm()
    client.simulator.slow_tasks("CreateSnapshot_Task", 0.05, count=1)
    task = vm.CreateSnapshot_Task("slow", "", False, False)
    assert task.info.state == "running"
    drop(done(task))
    client.simulator.hang_tasks("CreateSnapshot_Task")
    task = vm.CreateSnapshot_Task("hangs", "", False, False)
    assert task.info.cancelable
    task.CancelTask()
    with pytest.raises(vmodl.fault.RequestCanceled):
        done(task)
    assert task.info.cancelled
    assert vm.snapshot is None
    task = vm.CreateSnapshot_Task("hangs", "", False, False)
    assert task.info.state == "running"
    assert task._moId in [t._moId for t in vm.recentTask]
    client.simulator.release_tasks()
    drop(done(task))


def test_waiting_for_updates(client: Client) -> None:
    """A session that waits for a task's updates lets others work, and gets them."""
    vm = client.vm()
    client.simulator.slow_tasks("CreateSnapshot_Task", 0.1, count=1)
    task = vm.CreateSnapshot_Task("slow", "", False, False)
    collector = client.content.propertyCollector
    query = vmodl.query.PropertyCollector
    collector.CreateFilter(
        query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=task)],
            propSet=[query.PropertySpec(type=vim.Task, pathSet=["info.state"])],
        ),
        True,
    )
    version, states = "", []
    while "success" not in states:
        update = collector.WaitForUpdatesEx(version, query.WaitOptions(maxWaitSeconds=10))
        version = update.version
        for changed in update.filterSet:
            states += [c.val for o in changed.objectSet for c in o.changeSet]
    assert states[0] == "running"


def test_questions(client: Client) -> None:
    """A question blocks its task until it is answered by one of its choices."""
    vm: Any = client.vm()
    done(vm.PowerOffVM_Task())
    client.simulator.question(
        vm._moId, "Moved or copied?", ["I moved it", "I copied it"], on_task="PowerOnVM_Task"
    )
    task = vm.PowerOnVM_Task()
    question = until(lambda: vm.runtime.question)
    assert question.text == "Moved or copied?"
    assert [c.label for c in question.choice.choiceInfo] == ["I moved it", "I copied it"]
    assert task.info.state == "running"
    with pytest.raises(vmodl.fault.InvalidArgument):
        vm.AnswerVM(question.id, "7")
    vm.AnswerVM(question.id, "1")
    done(task)
    assert client.simulator.answers(vm._moId) == ["1"]
    assert not vm.runtime.question
    client.simulator.question(vm._moId, "Now?", ["Yes"])
    assert vm.runtime.question.text == "Now?"


def test_sessions_end(client: Client) -> None:
    """An expired session may read neither properties nor files; a wrong password is refused."""
    vm = client.vm()
    path = folder(vm.config.files.vmPathName)
    assert client.request("GET", path).status == 200
    client.simulator.expire_sessions()
    with pytest.raises(vim.fault.NotAuthenticated):
        vm.CreateSnapshot_Task("one", "", False, False)
    with pytest.raises(vim.fault.NotAuthenticated):
        hash(vm.name)
    assert client.request("GET", path).status == 401
    session = client.content.sessionManager
    with pytest.raises(vim.fault.InvalidLogin):
        session.Login(client.simulator.user, "wrong")
    session.Login(client.simulator.user, client.simulator.password)
    assert vm.name == "DC0_C0_RP0_VM0"


BROKEN: dict[str, tuple[Callable[[Simulator], None], type[Exception]]] = {
    "drop": (lambda s: s.drop_connections(-1, "CurrentTime"), http.client.RemoteDisconnected),
    "garbage": (lambda s: s.garbage(1, "CurrentTime"), Exception),
    "status": (lambda s: s.http_status(503, 1, "CurrentTime"), http.client.HTTPException),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_answers(client: Client, kind: str) -> None:
    """Answers are cut off, garbled, or of another status, for the method asked and no other."""
    rule, error = BROKEN[kind]
    rule(client.simulator)
    assert client.vm().name
    with pytest.raises(error):
        client.instance.CurrentTime()
    client.simulator.clear()
    assert client.instance.CurrentTime()


def test_lost_answer(client: Client) -> None:
    """A call may take effect while its answer is lost."""
    vm = client.vm()
    client.simulator.drop_connections(1, "CreateSnapshot_Task", after_effect=True)
    with pytest.raises(http.client.RemoteDisconnected):
        vm.CreateSnapshot_Task("one", "", False, False)
    assert vm.snapshot.rootSnapshotList[0].name == "one"


def test_down_and_up(client: Client) -> None:
    """While stopped it refuses connections; started, the inventory and the sessions are there."""
    simulator, vm = client.simulator, client.vm()
    snapshot(vm)
    simulator.stop()
    with pytest.raises(OSError, match="EOF"):
        client.instance.CurrentTime()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((simulator.host, simulator.port))
    simulator.start()
    assert vm.snapshot is not None
    simulator.restart()
    with pytest.raises(OSError, match="EOF"):
        client.instance.CurrentTime()
    with pytest.raises(vim.fault.NotAuthenticated):
        client.instance.CurrentTime()
    with connected(simulator) as again:
        assert again.vm().snapshot is not None


def test_hang(client: Client) -> None:
    """While it hangs it accepts connections and answers nothing."""
    address = client.simulator.url + folder(client.vm().config.files.vmPathName)
    client.simulator.hang()
    try:
        with pytest.raises(urllib3.exceptions.TimeoutError):
            client.request("GET", address, timeout=0.2)
    finally:
        client.simulator.go_on()
    assert client.request("GET", address).status == 200


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"certificate_expired": True}, "certificate has expired"),
        ({"certificate_names": ("elsewhere.example",)}, "mismatch"),
    ],
)
def test_wrong_certificates(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    """The certificate can be expired or another host's; its fingerprint is known all the same."""
    with running_simulator(tmp_path / "wrong", **options) as simulator:
        with pytest.raises(ssl.SSLCertVerificationError, match=problem), simulator.connect():
            pass
        with urllib3.PoolManager(
            cert_reqs="CERT_NONE", assert_fingerprint=simulator.thumbprint_sha256
        ) as pinned:
            assert pinned.request("GET", simulator.url + "/about", retries=False).status == 200


def test_snapshot_limit_and_tools(client: Client) -> None:
    """No more than 32 snapshots in a chain; no quiescing without tools."""
    vm = client.vm()
    client.simulator.guest(vm._moId, tools=False)
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        snapshot(vm, quiesce=True)
    for _ in range(32):
        snapshot(vm)
    with pytest.raises(vim.fault.TooManySnapshotLevels):
        snapshot(vm)
    done(vm.RemoveAllSnapshots_Task())
    assert vm.snapshot is None
    assert disks(vm.config)[0].backing.parent is None


def test_panics_are_seen(tmp_path: Path) -> None:
    """A panic in the simulator is a fault for its caller, and fails the test at its end."""
    simulator = Simulator(tmp_path / "panics")
    with connected(simulator) as client:
        simulator.control("answer", mode="panic", method="CurrentTime", count=1)
        with pytest.raises(vmodl.fault.InvalidRequest):
            client.instance.CurrentTime()
        assert client.instance.CurrentTime()
    with pytest.raises(SimulatorError, match="panicked"):
        simulator.close()
