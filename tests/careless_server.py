"""An object store that takes the condition of a put and ignores it: `rclone serve s3` on a folder.

Knows how it is started and its credentials. Its buckets are the folders in `folder`; what a test
puts there by itself it does before the first request, because the server remembers listings.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KEY: Final = ("CARELESSKEY", "carelesssecret")
_UP_S: Final = 30.0


@dataclass(frozen=True)
class CarelessServer:
    """folder: with a folder for each bucket, whose files are its objects."""

    endpoint: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """What a command needs to reach it; nothing allows http beyond this machine."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY[0],
            "AWS_SECRET_ACCESS_KEY": _KEY[1],
        }


@contextmanager
def careless_server(folder: Path) -> Iterator[CarelessServer]:
    """One that answers, with the empty bucket `careless`."""
    rclone = shutil.which("rclone") or str(Path(sys.executable).parent / "rclone")
    (folder / "careless").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [rclone, "serve", "s3", "--auth-key", ",".join(_KEY), "--addr", f"127.0.0.1:{port}"]
    command += ["--config", "/dev/null", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await_up(process, port)
            yield CarelessServer(f"http://127.0.0.1:{port}", folder)
        finally:
            process.kill()


def _await_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _UP_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"rclone did not come up in {_UP_S:.0f} s")
