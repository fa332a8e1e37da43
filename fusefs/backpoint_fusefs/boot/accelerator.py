"""What runs a guest's instructions: KVM where it truly boots a guest, else QEMU's own translator.

Decides by trying: /dev/kvm of nested machines may open and then run nothing, and QEMU does not fall
back by itself then. A trial boots 512 bytes; nothing is remembered, because machines move.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from backpoint_fusefs.boot.trial_sector import EXIT_PORT, PASSED, TRIAL_SECTOR

_KVM: Final = "/dev/kvm"
_TRIAL_LIMIT_S: Final = 4.0
"""KVM that runs a guest needs 0.2 s."""
_WORDS_MAX: Final = 200

Kind = Literal["kvm", "tcg"]


@dataclass(frozen=True)
class Accelerator:
    """why_not_kvm: empty where it is KVM."""

    kind: Kind
    why_not_kvm: str = ""

    @property
    def words(self) -> list[str]:
        """For QEMU. `max`: guests of today ask for more than the oldest CPU has (x86-64-v2)."""
        if self.kind == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def find_accelerator(program: str) -> Accelerator:
    """Takes up to some seconds where KVM hangs. program: QEMU's."""
    try:
        os.close(os.open(_KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Accelerator("tcg", f"{_KVM} cannot be opened ({error.strerror})")
    why_not = try_guest(program, Accelerator("kvm"))
    return Accelerator("tcg", why_not) if why_not else Accelerator("kvm")


def try_guest(program: str, accelerator: Accelerator, limit_s: float = _TRIAL_LIMIT_S) -> str:
    """Boot the trial sector. Empty where it got through, else why not, as a phrase."""
    with tempfile.TemporaryDirectory(prefix="backpoint-trial-") as folder:
        image = Path(folder) / "trial"
        image.write_bytes(TRIAL_SECTOR)
        command = [program, *accelerator.words, "-nodefaults", "-no-user-config"]
        command += ["-display", "none", "-m", "16", "-no-reboot", "-sandbox", "on"]
        command += ["-device", f"isa-debug-exit,iobase={EXIT_PORT},iosize=4"]
        command += ["-drive", "if=floppy,format=raw,file=trial"]
        return _outcome(command, folder, limit_s)


def _outcome(command: list[str], folder: str, limit_s: float) -> str:
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            return f"QEMU cannot be started ({error.strerror})"
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            child.kill()
            child.wait()
        if code == PASSED:
            return ""
        said.seek(0)
        words = said.read(_WORDS_MAX).decode(errors="replace").splitlines() or [""]
    how = f"did not end in {limit_s:g} s" if code is None else f"ended with code {code}"
    first = "".join(char if char.isprintable() else "?" for char in words[0])
    return f"a trial guest {how}{': ' if first else ''}{first}"
