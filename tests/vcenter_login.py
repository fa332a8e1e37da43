"""Logging in to a simulator as the agent does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backpoint_agent.settings.model import SecretSettings, VCenterSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.vcenter import VCenter
from vcsim import Simulator


def vcenter_settings(simulator: Simulator, folder: Path, **changes: Any) -> VCenterSettings:
    """Right settings, with short limits; `changes` makes them otherwise."""
    secret = folder / "vcenter-password"
    secret.write_text(f"{simulator.password}\n")
    secret.chmod(0o600)
    values: dict[str, Any] = {
        "name": "dc1",
        "address": f"{simulator.host}:{simulator.port}",
        "user": simulator.user,
        "password": SecretSettings(file=secret),
        "ca_file": None if changes.get("thumbprint") else simulator.ca_file,
        "request_limit_s": 10,
    }
    return VCenterSettings(**{**values, **changes})


@contextlib.contextmanager
def logged_in(
    simulator: Simulator, folder: Path, stop: Stop | None = None, **changes: Any
) -> Iterator[VCenter]:
    """A vCenter that is closed at the end."""
    vcenter = VCenter(vcenter_settings(simulator, folder, **changes), stop or Stop())
    try:
        yield vcenter
    finally:
        vcenter.close()
