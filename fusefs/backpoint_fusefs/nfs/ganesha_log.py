"""What NFS-Ganesha's log tells of its start: that it serves, or why not, in a user's words.

Made for the lines of versions 4 to 6. Reads text only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SERVING: Final = "NFS SERVER INITIALIZED"
_BAD_LEVELS: Final = (":CRIT :", ":MAJ :", ":FATAL :")
_NOISE: Final = ("DBUS", "dbus", "krb5", "keytab", "principal", "RADOS", "register NFS V4")
"""Machines without D-Bus, Kerberos or rpcbind serve as well."""
_FAULTS: Final = (
    # (what the line has, what the user reads)
    ("Address already in use", "a port it needs is in use"),
    ("Cannot assign requested address", "this machine does not have the address"),
    ("Permission denied", "it may not open what it needs: only root can export"),
    ("Cannot register NFS V3", "it cannot register with rpcbind"),
    ("Cannot register MOUNT", "it cannot register with rpcbind"),
    ("Could not create export", "it cannot export the mount"),
    ("Errors processing block", "it does not understand its configuration"),
    ("No export entries found", "it cannot export the mount"),
    ("Error loading FSAL", "its VFS module is missing: install the package nfs-ganesha-vfs"),
    ("Failed to load FSAL", "its VFS module is missing: install the package nfs-ganesha-vfs"),
    ("dlopen", "its VFS module is missing: install the package nfs-ganesha-vfs"),
)


@dataclass(frozen=True)
class StartState:
    """serving: it answers clients. fault: what stands in the way, empty as long as nothing does;
    both at once where it serves, but not what it should."""

    serving: bool
    fault: str = ""


def read_start(text: str) -> StartState:
    """text: what was logged since the start."""
    fault = ""
    for needle, meaning in _FAULTS:
        if needle in text:
            fault = meaning
            break
    return StartState(_SERVING in text, fault)


def last_words(text: str) -> str:
    """The last line that tells of something bad, without its date and process; else empty."""
    found = ""
    for line in text.splitlines():
        bad = any(level in line for level in _BAD_LEVELS)
        if bad and not any(word in line for word in _NOISE):
            # date time : epoch x : host : program-pid[thread] function :COMPONENT :LEVEL :words
            found = line.split(" :", 6)[-1].strip() or found
    return found
