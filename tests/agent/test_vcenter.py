"""The door to a vCenter: what breaks is told in one sentence, only what may be is tried again."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_agent.errors import (
    CannotConnect,
    LoginRefused,
    ObjectGone,
    PermissionMissing,
    Stopped,
    VSphereError,
)
from backpoint_agent.settings.model import SecretSettings, VCenterSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere import soap
from backpoint_agent.vsphere.connections import Connections
from backpoint_agent.vsphere.trust import Trust
from backpoint_agent.vsphere.vcenter import VCenter
from rogue_server import Answer, ok, rogue_server
from vcenter_login import logged_in, vcenter_settings
from vcsim import Simulator

DEADLINE_S = 20.0
VM = "VirtualMachine"


def _logins(simulator: Simulator) -> int:
    return sum(call.method == "Login" for call in simulator.calls())


def _until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while not true():
        assert time.monotonic() < give_up_at
        tick.wait(0.02)


def _name(vcenter: VCenter, moref: str) -> str:
    vm = vcenter.object(VM, moref)
    return str(vcenter.call("reading a name", lambda: vm.name))


def _add_field(vcenter: VCenter, name: str) -> None:
    manager = vcenter.content.customFieldsManager
    vcenter.call(
        "adding a field",
        lambda: manager.AddFieldDefinition(name=name, moType=type(vcenter.object(VM, "vm-1"))),
        repeat=False,
    )


# Logging in


def test_wrong_password_is_sent_once(simulator: Simulator, tmp_path: Path) -> None:
    """A refused password is not tried again: accounts get locked."""
    wrong = tmp_path / "wrong"
    wrong.write_text("Wrong-secret-9\n")
    wrong.chmod(0o600)
    with pytest.raises(LoginRefused, match=simulator.user) as refused:
        VCenter(vcenter_settings(simulator, tmp_path, password=SecretSettings(file=wrong)), Stop())
    assert _logins(simulator) == 1
    assert "Wrong-secret-9" not in "".join(traceback.format_exception(refused.value))


def test_password_that_is_not_there(simulator: Simulator, tmp_path: Path) -> None:
    """The place is named, and nobody is asked to log in without one."""
    nowhere = SecretSettings(file=tmp_path / "nowhere")
    with pytest.raises(LoginRefused, match="nowhere"):
        VCenter(vcenter_settings(simulator, tmp_path, password=nowhere), Stop())
    assert _logins(simulator) == 0


def test_password_changed_during_the_session(simulator: Simulator, tmp_path: Path) -> None:
    """The renewal reads the password again; once refused, no thread sends it a second time."""
    with logged_in(simulator, tmp_path) as vcenter:
        (tmp_path / "vcenter-password").write_text("Stale-secret-3\n")
        simulator.expire_sessions()
        simulator.forget_calls()
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(_name, vcenter, "vm-1") for _ in range(8)]
            failures = [one.exception(DEADLINE_S) for one in asked]
        assert {type(failure) for failure in failures} == {LoginRefused}
        assert _logins(simulator) == 1


def test_close_logs_out_and_may_be_repeated(simulator: Simulator, tmp_path: Path) -> None:
    """The session does not linger; what is asked afterwards fails as a lost connection."""
    vcenter = VCenter(vcenter_settings(simulator, tmp_path), Stop())
    vcenter.close()
    vcenter.close()
    assert [call.method for call in simulator.calls()].count("Logout") == 1
    with pytest.raises(CannotConnect):
        vcenter.call("reading the time", vcenter.content.sessionManager.sessionList)
    assert _logins(simulator) == 1


def test_facts(simulator: Simulator, tmp_path: Path) -> None:
    """Name, address and uuid are the configuration's and the vCenter's."""
    with logged_in(simulator, tmp_path) as vcenter:
        assert vcenter.name == "dc1"
        assert vcenter.address == f"127.0.0.1:{simulator.port}"
        with simulator.connect() as instance:
            assert vcenter.uuid == instance.content.about.instanceUuid
    with logged_in(simulator, tmp_path, name="") as nameless:
        assert nameless.name == nameless.address


@pytest.mark.parametrize(
    "address", ["", "a/b", "user@host", "host:port", "https://host", "h:99999"]
)
def test_addresses_that_are_none(address: str) -> None:
    """Nobody is asked."""
    with pytest.raises(CannotConnect, match="neither host nor host:port"):
        Connections(address, Trust(), 1, Stop())


# A session that ends


def test_an_expired_session_is_renewed_once(simulator: Simulator, tmp_path: Path) -> None:
    """Twenty threads that meet the end of a session log in once, and none of them notices."""
    with logged_in(simulator, tmp_path) as vcenter:
        for _ in range(3):
            simulator.expire_sessions()
            simulator.forget_calls()
            with ThreadPoolExecutor(20) as pool:
                names = [pool.submit(_name, vcenter, vm) for vm in simulator.vms() * 10]
                assert len({name.result(DEADLINE_S) for name in names}) == 2
            assert _logins(simulator) == 1


def test_effects_survive_an_expired_session_once(simulator: Simulator, tmp_path: Path) -> None:
    """A call refused for want of a session did nothing, so it is made again, effect or not."""
    with logged_in(simulator, tmp_path) as vcenter:
        manager = vcenter.content.customFieldsManager
        simulator.expire_sessions()
        _add_field(vcenter, "backpoint")
        fields = vcenter.call("reading fields", lambda: manager.field)
        assert [field.name for field in fields].count("backpoint") == 1


def test_what_dies_with_a_session_is_made_anew(simulator: Simulator, tmp_path: Path) -> None:
    """A view of a lost session is gone; the whole question is asked once more in the new one."""
    with logged_in(simulator, tmp_path) as vcenter:
        asked = []

        def ask() -> list[str]:
            asked.append(1)
            content = vcenter.content
            view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
            if len(asked) == 1:
                simulator.expire_sessions()
            return [entity._moId for entity in view.view]

        assert simulator.vms()[0] in vcenter.call("reading the inventory", ask)
        assert len(asked) == 2


def test_http_renews_the_session(simulator: Simulator, tmp_path: Path) -> None:
    """A 401 is met with a new session, and a body that can be rewound is sent again."""
    path = "/folder/renewed?dcPath=DC0&dsName=LocalDS_0"
    with logged_in(simulator, tmp_path) as vcenter:
        simulator.expire_sessions()
        answer = vcenter.http("PUT", path, body=b"new")
        assert answer.status in (200, 201)
        answer.close()
        simulator.expire_sessions()
        body = tmp_path / "body"
        body.write_bytes(b"other")
        with body.open("rb") as file:
            vcenter.http("PUT", path, body=file, headers={"Content-Length": "5"}).close()
        simulator.expire_sessions()
        answer = vcenter.http("GET", f"{vcenter_url(vcenter)}{path}")
        assert (answer.status, answer.read()) == (200, b"other")
        answer.release_conn()
        simulator.expire_sessions()
        with pytest.raises(CannotConnect, match="session"):
            vcenter.http("PUT", path, body=iter([b"abc"]))


def vcenter_url(vcenter: VCenter) -> str:
    return f"https://{vcenter.address}"


def test_signs_of_life(simulator: Simulator, tmp_path: Path) -> None:
    """An idle session is kept alive, even renewed, and left in peace once closed."""
    with logged_in(simulator, tmp_path, keep_alive_s=0.05):
        _until(lambda: [c.method for c in simulator.calls()].count("CurrentTime") >= 3)
        simulator.expire_sessions()
        _until(lambda: _logins(simulator) == 2)
    assert not [t for t in threading.enumerate() if t.name.startswith("keep-alive")]


# A vCenter that fails


def test_vcenter_down(simulator: Simulator, tmp_path: Path) -> None:
    """Nobody listens: CannotConnect that names the address, at login and later."""
    settings = vcenter_settings(simulator, tmp_path, request_limit_s=0.5)
    with logged_in(simulator, tmp_path, request_limit_s=0.5) as vcenter:
        simulator.stop()
        with pytest.raises(CannotConnect, match=f"reading a name: {vcenter.address}"):
            _name(vcenter, "vm-1")
        with pytest.raises(CannotConnect, match=vcenter.address):
            VCenter(settings, Stop())
        simulator.start()


def test_unknown_name(simulator: Simulator, tmp_path: Path) -> None:
    """A host that no resolver knows is named."""
    settings = vcenter_settings(simulator, tmp_path, address="vcenter.invalid", request_limit_s=0.2)
    with pytest.raises(CannotConnect, match=r"vcenter\.invalid"):
        VCenter(settings, Stop())


def test_vcenter_hangs(simulator: Simulator, tmp_path: Path) -> None:
    """A server that accepts and never answers is given up after the limit, at login and later."""
    with logged_in(simulator, tmp_path, request_limit_s=0.3) as vcenter:
        simulator.hang()
        try:
            with pytest.raises(CannotConnect, match=r"within 0\.3 s"):
                _name(vcenter, "vm-1")
            with pytest.raises(CannotConnect, match=r"within 0\.3 s"):
                VCenter(vcenter_settings(simulator, tmp_path, request_limit_s=0.3), Stop())
        finally:
            simulator.go_on()


def test_vcenter_restarts(simulator: Simulator, tmp_path: Path) -> None:
    """After a restart connections and sessions are new, without anybody's doing."""
    with logged_in(simulator, tmp_path) as vcenter:
        vm = simulator.vms()[0]
        before = _name(vcenter, vm)
        simulator.restart()
        assert _name(vcenter, vm) == before
        assert _logins(simulator) == 2


def test_short_trouble_is_outlived(simulator: Simulator, tmp_path: Path) -> None:
    """Questions are asked again after cut connections, nonsense and "not ready"."""
    with logged_in(simulator, tmp_path) as vcenter:
        vm = simulator.vms()[0]
        before = _name(vcenter, vm)
        troubles: list[Callable[[], None]] = [
            lambda: simulator.drop_connections(2),
            lambda: simulator.garbage(1),
            lambda: simulator.http_status(503, 1),
        ]
        for trouble in troubles:
            trouble()
            assert _name(vcenter, vm) == before


def test_effects_are_not_repeated(simulator: Simulator, tmp_path: Path) -> None:
    """A call with an effect whose answer was lost is not made again."""
    with logged_in(simulator, tmp_path) as vcenter:
        manager = vcenter.content.customFieldsManager
        simulator.forget_calls()
        simulator.drop_connections(1, "AddCustomFieldDef", after_effect=True)
        with pytest.raises(CannotConnect, match="adding a field"):
            _add_field(vcenter, "once")
        methods = [call.method for call in simulator.calls()]
        assert methods.count("AddCustomFieldDef") == 1
        assert [f.name for f in vcenter.call("fields", lambda: manager.field)] == ["once"]


def test_lasting_trouble_is_told(simulator: Simulator, tmp_path: Path) -> None:
    """What does not pass is told in its own words."""
    with logged_in(simulator, tmp_path, request_limit_s=0.3) as vcenter:
        troubles: dict[str, Callable[[], None]] = {
            "no SOAP answer": lambda: simulator.garbage(-1),
            "not ready": lambda: simulator.http_status(503, -1),
            "HTTP 404": lambda: simulator.http_status(404, -1),
            "was cut": lambda: simulator.drop_connections(-1),
        }
        for words, trouble in troubles.items():
            trouble()
            with pytest.raises(CannotConnect, match=words):
                _name(vcenter, "vm-1")
            simulator.clear()


def test_a_stop_ends_the_waits(simulator: Simulator, tmp_path: Path) -> None:
    """Between two tries a stop is heard; what is asked after it is clearing up, and is answered."""
    stop = Stop()
    with logged_in(simulator, tmp_path, stop, request_limit_s=60) as vcenter:
        simulator.drop_connections(-1)
        with ThreadPoolExecutor(1) as pool:
            simulator.forget_calls()
            asked = pool.submit(_name, vcenter, "vm-1")
            _until(lambda: bool(simulator.calls()))
            stop.request("SIGTERM")
            with pytest.raises(Stopped, match="SIGTERM"):
                asked.result(DEADLINE_S)
        simulator.clear()
        simulator.drop_connections(1)
        assert _name(vcenter, simulator.vms()[0])


# Faults


def test_missing_privilege(simulator: Simulator, tmp_path: Path) -> None:
    """The message names the privilege and the VM by name and moref."""
    privilege = "VirtualMachine.State.CreateSnapshot"
    simulator.refuse_privilege(privilege)
    with logged_in(simulator, tmp_path) as vcenter:
        moref = simulator.vms()[0]
        vm, name = vcenter.object(VM, moref), _name(vcenter, moref)
        with pytest.raises(PermissionMissing) as missing:
            vcenter.call(
                "making a snapshot",
                lambda: vm.CreateSnapshot_Task("s", "", False, False),
                repeat=False,
            )
    assert privilege in str(missing.value)
    assert f"{name} ({moref})" in str(missing.value)


def test_a_machine_that_does_not_exist(simulator: Simulator, tmp_path: Path) -> None:
    """The call says what is gone, and is not repeated."""
    with logged_in(simulator, tmp_path) as vcenter:
        simulator.forget_calls()
        with pytest.raises(ObjectGone, match="dc1: reading a name: "):
            _name(vcenter, "vm-99999")
        assert len(simulator.calls()) == 1


def test_secrets_stay_inside(simulator: Simulator, tmp_path: Path) -> None:
    """Neither password nor cookie is in any text that an object or an error gives."""
    with logged_in(simulator, tmp_path, request_limit_s=0.3) as vcenter:
        vm = vcenter.object(VM, "vm-99999")
        cookie, said = vcenter.cookie(), [repr(vcenter), str(vcenter), repr(vm._stub)]
        assert len(cookie) > 10
        troubles: list[Callable[[], None]] = [
            lambda: None,
            lambda: simulator.garbage(-1),
            lambda: simulator.drop_connections(-1),
            lambda: simulator.http_status(503, -1),
        ]
        for trouble in troubles:
            trouble()
            with pytest.raises(VSphereError) as failed:
                vcenter.call("reading a name", lambda: vm.name)
            said += traceback.format_exception(failed.value)
            simulator.clear()
        said.append(repr(vm._stub.session))
    assert simulator.password not in "".join(said)
    assert cookie not in "".join(said)


# A server that is hostile


def _drip(head: bytes) -> Answer:
    def answer(request: bytes, ended: threading.Event) -> Iterable[bytes]:
        yield head
        while not ended.wait(0.05):
            yield b"x"

    return answer


def _soap(body: str) -> bytes:
    return ok(
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><s:Body>'
        f'<RetrieveServiceContentResponse xmlns="urn:vim25">{body}'
        "</RetrieveServiceContentResponse></s:Body></s:Envelope>".encode()
    )


VERSIONS = ok(
    b'<namespaces version="1.0"><namespace><name>urn:vim25</name><version>6.7</version>'
    b"</namespace></namespaces>"
)


def _refused(tmp_path: Path, answer: Answer) -> str:
    """Log in to a rogue server whose certificate is pinned: all that is left is its answers."""
    password = tmp_path / "password"
    password.write_text("Vc-secret-1\n")
    password.chmod(0o600)
    with rogue_server(tmp_path, answer) as rogue:
        settings = VCenterSettings(
            name="dc1",
            address=rogue.address,
            user="backup",
            password=SecretSettings(file=password),
            thumbprint=rogue.certificate.sha256,
            request_limit_s=0.4,
        )
        with pytest.raises(CannotConnect) as failed:
            VCenter(settings, Stop())
        assert b"Vc-secret-1" not in b"".join(rogue.requests)
        return str(failed.value)


def test_headers_that_drip(tmp_path: Path) -> None:
    """A byte now and then does not hold the agent: the limit is for the whole answer."""
    assert "did not answer within" in _refused(tmp_path, _drip(b"HTTP/1.1 200 OK\r\nX: "))


def test_body_that_drips(tmp_path: Path) -> None:
    """Nor does a body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    assert "did not answer within" in _refused(tmp_path, _drip(head))


def test_endless_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no end is cut at a bound, not kept until memory ends."""
    monkeypatch.setattr(soap, "ANSWER_MAX", 2 << 20)

    def answer(request: bytes, ended: threading.Event) -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield bytes(1 << 20)

    assert "more than 2 MiB" in _refused(tmp_path, answer)


@pytest.mark.parametrize(
    "whole",
    [
        ok(b"", "302 Found", "Location: https://127.0.0.1/elsewhere\r\n"),
        ok(b"<html>an appliance's login page</html>"),
        ok(b"<namespaces><namespace><name>urn:vim25</name></namespace></namespaces>"),
        ok(b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>'),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n<namespaces",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    ],
)
def test_servers_that_are_no_vcenter(tmp_path: Path, whole: bytes) -> None:
    """Whatever else may answer there, the message is one sentence and no password was sent."""
    text = _refused(tmp_path, lambda request, ended: [whole])
    assert text.startswith("dc1: connecting: 127.0.0.1:") or "connection to 127.0.0.1" in text


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<returnval/>",
        "<returnval>text</returnval>",
        '<returnval xsi:type="VirtualMachine">vm-1</returnval>',
        '<returnval xsi:type="NoSuchType">x</returnval>',
        '<returnval xsi:type="ArrayOfString"><x/></returnval>',
        "<returnval><rootFolder>group-1</rootFolder></returnval>",
        "<returnval><about><apiType><x/></apiType></about></returnval>",
        "<returnval>" + "<x>" * 5000 + "</x>" * 5000 + "</returnval>",
    ],
)
def test_answers_of_a_wrong_shape(tmp_path: Path, body: str) -> None:
    """Answers that are XML and not what was asked for are told as such, whatever they break."""

    def answer(request: bytes, ended: threading.Event) -> Iterable[bytes]:
        return [VERSIONS if request.startswith(b"GET") else _soap(body)]

    text = _refused(tmp_path, answer)
    assert "no SOAP answer" in text or "offers no login" in text
