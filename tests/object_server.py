"""A real object store for tests: SeaweedFS in one process, with its S3 service on a free port.

Knows how it is started, its credentials and its buckets; what is kept in it is the test's business.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.store import S3Store

ADMIN: Final = ("ADMINKEY", "adminsecret")
AGENT: Final = ("AGENTKEY", "agentsecret")
MAINTAINER: Final = ("MAINTKEY", "maintainersecret")
"""These two may do what a bucket's policy allows the users `agent` and `maintainer`, nothing else.
"""
ACCOUNT: Final = "000000000000"
"""Whose users they are, as policies have it."""
_UP_S: Final = 60.0
_NAMES: Final = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class ObjectServer:
    """endpoint: http://127.0.0.1:PORT."""

    endpoint: str

    def environment(self, credential: tuple[str, str] = ADMIN) -> dict[str, str]:
        """What a command needs to reach it."""
        key, secret = credential
        return {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def make_bucket(self, name: str) -> None:
        """By a put: a listing does not make it."""
        place = S3Store(
            name,
            endpoint=self.endpoint,
            access_key_id=ADMIN[0],
            secret_access_key=ADMIN[1],
            region="us-east-1",
            client_options={"allow_http": True},
        )
        obstore.put(place, "made", b"")
        obstore.delete(place, "made")


@contextmanager
def object_server(folder: Path) -> Iterator[ObjectServer]:
    """One that is up; buckets come into being when something is put into them by ADMIN."""
    weed = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    config = folder / "s3.json"
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [
        _identity("admin", ADMIN, everything),
        _identity("agent", AGENT, []),
        _identity("maintainer", MAINTAINER, []),
    ]
    config.write_text(json.dumps({"identities": identities}))
    data = folder / "data"
    data.mkdir()
    ports = dict(zip(_NAMES, _free_ports(), strict=True))
    log = folder / "weed.log"
    # Its gRPC ports are its others plus 10000.
    command = [
        weed, "server", "-s3", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.config={config}", "-volume.max=100", "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false", "-s3.autoCreateBucket",
        # Services whose ports are fixed: a second server on the machine would die of them.
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{name}.port={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        _await_up(process, f"{endpoint}/healthz", log)
        yield ObjectServer(endpoint)
    finally:
        process.kill()
        process.wait()


def _identity(name: str, credential: tuple[str, str], actions: list[str]) -> dict[str, Any]:
    keys = {"accessKey": credential[0], "secretKey": credential[1]}
    return {"name": name, "credentials": [keys], "actions": actions}


def _await_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _UP_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    raise AssertionError(f"SeaweedFS did not come up in {_UP_S:.0f} s:\n{tail}")


def _free_ports() -> list[int]:
    """Below 20000, so that each plus 10000 is no port the system gives to others by itself."""
    found: list[int] = []
    start = 11000 + os.getpid() * 8 % 8000
    for port in range(start, 20000):
        if len(found) == len(_NAMES):
            break
        if all(_is_free(candidate) for candidate in (port, port + 10000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
