"""What a session may be called: a name that is safe as a folder, in a shell and on a datastore.

Pure; knows no folder and no sessions.
"""

from __future__ import annotations

import re
from collections.abc import Container
from itertools import count
from typing import Final

from backpoint_repo.errors import UsageError

HOME_FILE: Final = "home.json"
RESERVED: Final = frozenset((HOME_FILE, "lock", "lost+found"))
"""What else is in the folder of sessions; so no session is called that."""
NAME_MAX: Final = 80
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._+-]+")
_DIGITS_MAX: Final = 9


def checked_name(name: str) -> str:
    """The name, as it is. Raises UsageError where a session cannot be called that."""
    if len(name) > NAME_MAX or not _NAME.fullmatch(name) or name in RESERVED:
        raise UsageError(
            f"a session cannot be called {name!r}: up to {NAME_MAX} letters and digits without "
            "accents, and . _ + - but not at the beginning (_ may begin it)"
        )
    return name


def default_name(vm: str, taken: Container[str]) -> str:
    """`<vm>-<n>` with the least n from 1 that is not taken, whatever the VM is called."""
    stem = _STRANGE.sub("-", vm).lstrip(".+-")[: NAME_MAX - _DIGITS_MAX - 1] or "vm"
    return next(name for n in count(1) if (name := f"{stem}-{n}") not in taken)
