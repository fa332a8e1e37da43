"""Tags of VMs, from vCenter's tagging service: REST, because SOAP does not know them.

Decides which of its two forms a vCenter speaks (`/api`, before 7.0 Update 2 `/rest`), and that the
number of exchanges goes with the tags in use, never with VMs. Refuses to judge what the want of
tags means. The service takes no SOAP session: it has a login of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import urllib3

from backpoint_agent.errors import CannotConnect, LoginRefused, PermissionMissing, TaskFailed
from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import VCenterSettings
from backpoint_agent.vsphere.disk_facts import text_of
from backpoint_agent.vsphere.vcenter import VCenter

Tags = dict[str, tuple[str, ...]]
"""By moref of the VM: "category/name", sorted."""

TAGS_MAX: Final = 50_000
_BATCH: Final = 50
"""Tags asked for at once; each may be on ten thousand VMs, which is 0.6 MB of JSON."""
_ANSWER_MAX: Final = 64 << 20
_NOT_SPOKEN: Final = {400, 404, 405, 501}


@dataclass(frozen=True)
class _Dialect:
    """How one form of the service is spoken. wrapped: answers are {"value": ...}."""

    session: str
    tagging: str
    action: str
    identified: str
    wrapped: bool


_DIALECTS: Final = (
    _Dialect("/api/session", "/api/cis/tagging", "action", "", False),
    _Dialect(
        "/rest/com/vmware/cis/session", "/rest/com/vmware/cis/tagging", "~action", "id:", True
    ),
)


def read_tags(vcenter: VCenter, login: VCenterSettings) -> Tags:
    """All tags of all VMs. login: whose user and password the service is given.

    Raises as `VCenter.call`, KeyFault where the password cannot be read, and TaskFailed where the
    service answers what cannot be understood.
    """
    service = _log_in(vcenter, login)
    try:
        by_tag = dict(_tagged_machines(service))
        names = _names_of(service, by_tag)
    finally:
        service.log_out()
    found: dict[str, list[str]] = {}
    for tag, machines in by_tag.items():
        for moref in machines:
            if tag in names:
                found.setdefault(moref, []).append(names[tag])
    return {moref: tuple(sorted(set(tags))) for moref, tags in found.items()}


class _Service:
    """One session of the tagging service."""

    def __init__(self, vcenter: VCenter, dialect: _Dialect, session: str) -> None:
        self._vcenter = vcenter
        self._dialect = dialect
        self._headers = {"vmware-api-session-id": session}

    def get(self, kind: str, number: str | None = None) -> Any:
        """All ids of a kind ("tag", "category"), or one object; None where that is gone."""
        path = f"{self._dialect.tagging}/{kind}"
        if number is not None:
            path += f"/{self._dialect.identified}{quote(number, safe=':')}"
        return self._ask("GET", path, None)

    def attached(self, tags: Sequence[str]) -> Any:
        """What the tags are attached to."""
        path = f"{self._dialect.tagging}/tag-association?{self._dialect.action}="
        return self._ask("POST", f"{path}list-attached-objects-on-tags", {"tag_ids": list(tags)})

    def log_out(self) -> None:
        """Whatever comes of it: the session ends by itself."""
        try:
            _exchange(self._vcenter, "DELETE", self._dialect.session, self._headers, None)
        except CannotConnect:
            return

    def _ask(self, method: str, path: str, body: Any) -> Any:
        status, data = _exchange(self._vcenter, method, path, self._headers, body)
        if status == 404:
            return None
        _check(self._vcenter, status)
        return _decoded(self._vcenter, data, self._dialect)


def _log_in(vcenter: VCenter, login: VCenterSettings) -> _Service:
    password = read_secret(login.password, f"the password of {login.user}")
    pair = base64.b64encode(f"{login.user}:{password}".encode()).decode()
    status = 404
    for dialect in _DIALECTS:
        headers = {"Authorization": f"Basic {pair}"}
        status, data = _exchange(vcenter, "POST", dialect.session, headers, None)
        if status in _NOT_SPOKEN:
            continue
        _check(vcenter, status)
        session = _decoded(vcenter, data, dialect)
        # It goes into a header: no line may end in it.
        if not isinstance(session, str) or not session.isascii() or not session.isprintable():
            raise TaskFailed(f"{vcenter.name}: the tagging service gave no session")
        return _Service(vcenter, dialect, session)
    raise TaskFailed(f"{vcenter.name}: there is no tagging service (HTTP status {status})")


def _tagged_machines(service: _Service) -> Iterator[tuple[str, list[str]]]:
    """Tags that are on a VM, with the VMs' morefs."""
    tags = [*_texts(service.get("tag"))][:TAGS_MAX]
    for at in range(0, len(tags), _BATCH):
        for item in _records(service.attached(tags[at : at + _BATCH])):
            machines = [
                object_id["id"]
                for object_id in _records(item.get("object_ids"))
                if object_id.get("type") == "VirtualMachine"
                and isinstance(object_id.get("id"), str)
            ]
            if machines and isinstance(item.get("tag_id"), str):
                yield item["tag_id"], machines


def _names_of(service: _Service, tags: Iterable[str]) -> dict[str, str]:
    """ "category/name" by tag; those that were deleted meanwhile have none."""
    categories: dict[str, str] = {}
    names = {}
    for tag in tags:
        facts = service.get("tag", tag)
        if not isinstance(facts, dict):
            continue
        category = text_of(facts.get("category_id"))
        if category not in categories:
            above = service.get("category", category)
            categories[category] = text_of(above.get("name")) if isinstance(above, dict) else ""
        names[tag] = f"{categories[category]}/{text_of(facts.get('name'))}"
    return names


def _exchange(
    vcenter: VCenter, method: str, path: str, headers: dict[str, str], body: Any
) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    sent = {"Accept": "application/json", **headers}
    if data is not None:
        sent["Content-Type"] = "application/json"
    answer = vcenter.http(method, path, headers=sent, body=data)
    try:
        content = answer.read(_ANSWER_MAX + 1)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise vcenter.http_error(error, path) from None
    finally:
        answer.close()
        answer.release_conn()
    if len(content) > _ANSWER_MAX:
        raise TaskFailed(f"{vcenter.name}: the tagging service's answer has no end")
    return answer.status, content


def _check(vcenter: VCenter, status: int) -> None:
    if 200 <= status < 300:
        return
    message = f"{vcenter.name}: the tagging service answered with HTTP status {status}"
    if status == 401:
        raise LoginRefused(message)
    if status == 403:
        raise PermissionMissing(message)
    raise CannotConnect(message)


def _decoded(vcenter: VCenter, data: bytes, dialect: _Dialect) -> Any:
    if not data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise TaskFailed(f"{vcenter.name}: the tagging service answered no JSON") from None
    if not dialect.wrapped:
        return value
    return value.get("value") if isinstance(value, dict) else None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _records(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
