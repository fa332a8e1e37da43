"""The library that speaks to object stores, in whichever process asks for it.

Its threads do not come along when a process is forked, and it would wait for them for ever: a mount
that goes on in the background opened its repository before it was forked. So a process that was
forked from one that used the library gets a second copy of it, with threads of its own; the first
is never touched again. Knows no store.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ExtensionFileLoader
from types import ModuleType
from typing import Final

from backpoint_repo.errors import StoreUnavailable

_NATIVE: Final = "obstore._obstore"
_COPIES: Final[dict[int, ModuleType]] = {}
"""By process. A copy cannot be unloaded, and what belongs to another process must not be freed:
its sockets wait in a queue that both processes share."""


def library() -> ModuleType:
    """The native part of `obstore` that may be used in this process: the same at every call.

    Raises StoreUnavailable where a forked process cannot get its own.
    """
    here = os.getpid()
    found = _COPIES.get(here)
    if found is not None:
        return found
    # Two threads that come here at once load two; one of them is used.
    return _COPIES.setdefault(here, _copied() if _COPIES else _first())


def _first() -> ModuleType:
    return importlib.import_module(_NATIVE)


def _copied() -> ModuleType:
    """Loaded a second time, with globals of its own."""
    native = sys.modules[_NATIVE]
    assert native.__file__ is not None
    try:
        copy = os.memfd_create("obstore")
        try:
            # By its file: the dynamic linker gives a file that it has loaded out a second time.
            with open(native.__file__, "rb") as source:
                while os.sendfile(copy, source.fileno(), None, 1 << 30):
                    pass
            return _loaded(f"/proc/{os.getpid()}/fd/{copy}")
        finally:
            os.close(copy)
    except (OSError, ImportError) as error:
        raise StoreUnavailable(
            "an object store cannot be used in a process that went into the background here "
            f"({type(error).__name__}); run it in the foreground"
        ) from error


def _loaded(path: str) -> ModuleType:
    loader = ExtensionFileLoader(_NATIVE, path)
    spec = importlib.util.spec_from_loader(_NATIVE, loader)
    assert spec is not None
    before = sys.modules[_NATIVE]
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    finally:
        sys.modules[_NATIVE] = before
    return module
