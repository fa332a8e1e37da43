"""A parser process from its first instruction: load, be confined, answer requests until the end.

Decides what a request's failure is called. Started by `parser_process.py`, with a descriptor to
talk through and the kind of filesystem as arguments.
"""

from __future__ import annotations

import codecs
import gc
import socket
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestError
from backpoint_fusefs.guest.worker.channel_image import ChannelImage
from backpoint_fusefs.guest.worker.frames import (
    FRAME_MAX,
    FrameKind,
    FrameSocket,
    PeerGone,
    pack,
    unpack,
)
from backpoint_fusefs.guest.worker.sandbox import SandboxMissing, confine

LAYOUT: Final = "layout"
WINDOWS: Final = "ntfs"
READ: Final = struct.Struct(">IQI")
"""Which image, offset, length."""
_CODECS: Final = ("ascii", "latin-1", "utf-8", "utf-16-le", "utf-16-be", "cp437", "cp1252")
"""Python loads a codec from a file at its first use, which the sandbox forbids."""
_MESSAGE_MAX: Final = 500

if TYPE_CHECKING:
    from backpoint_fusefs.guest.worker.filesystem_service import FilesystemService

Methods = dict[str, Callable[..., Any]]


class ImageUnreadable(Exception):
    """The parent could not read what was asked for: the repository's fault, not the guest's."""


def main() -> int:
    """The process's whole life."""
    # Lists of a hundred thousand entries are no garbage: looking through them takes a quarter of
    # the time that making them does.
    gc.set_threshold(200_000, 100, 100)
    descriptor, kind, streams = sys.argv[1:]
    frames = FrameSocket(socket.socket(fileno=int(descriptor)))
    for name in _CODECS:
        codecs.lookup(name)
    try:
        prepare = _prepared(kind, streams == "streams")
        confine()
    except ImportError as error:
        _refuse(frames, "SandboxMissing", f"this installation is incomplete: {error}")
        return 1
    except SandboxMissing as error:
        _refuse(frames, "SandboxMissing", str(error))
        return 1
    frames.send(FrameKind.RESULT, pack("ready"))
    _serve(frames, prepare)
    return 0


def _prepared(kind: str, streams: bool) -> Callable[[list[ChannelImage]], Methods]:
    """Everything imported; what it returns makes the methods when the images are known."""
    if kind == LAYOUT:
        from backpoint_fusefs.guest.worker.layout_service import layout_methods

        return layout_methods
    from backpoint_fusefs.guest.parsers.open_filesystem import load_parser
    from backpoint_fusefs.guest.worker.filesystem_service import FilesystemService

    open_filesystem = load_parser(kind, streams=streams)
    hive_methods = _hive_methods(kind)

    def methods(images: list[ChannelImage]) -> Methods:
        service = FilesystemService(images[0], open_filesystem)
        return service.methods() | hive_methods(service)

    return methods


def _hive_methods(kind: str) -> Callable[[FilesystemService], Methods]:
    """What only filesystems have that Windows can be installed on."""
    if kind != WINDOWS:
        return lambda _: {}
    from backpoint_fusefs.guest.worker.hive_service import hive_methods

    return hive_methods


def _serve(frames: FrameSocket, prepare: Callable[[list[ChannelImage]], Methods]) -> None:
    methods: Methods = {}

    def open_images(*sizes: int) -> None:
        fetches = [_fetch_from(frames, at) for at in range(len(sizes))]
        methods.update(prepare(list(map(ChannelImage, sizes, fetches))))

    methods["open"] = open_images
    while True:
        try:
            _, payload = frames.receive()
            name, *arguments = unpack(payload)
            _answer(frames, methods[name], arguments)
        except PeerGone:
            return


def _fetch_from(frames: FrameSocket, image: int) -> Callable[[int, int], bytes]:
    def fetch(offset: int, length: int) -> bytes:
        frames.send(FrameKind.READ, READ.pack(image, offset, length))
        kind, payload = frames.receive()
        if kind is not FrameKind.DATA:
            raise ImageUnreadable(bytes(payload).decode(errors="replace"))
        return bytes(payload)

    return fetch


def _answer(frames: FrameSocket, method: Callable[..., Any], arguments: list[Any]) -> None:
    try:
        answer = method(*arguments)
        plain = isinstance(answer, bytes)
        content = answer if plain else pack(answer)
        if len(content) > FRAME_MAX:
            raise GuestDamaged("an answer larger than it may be")
    except PeerGone:
        raise
    except GuestError as error:
        _refuse(frames, type(error).__name__, str(error))
    except MemoryError:
        _refuse(frames, "GuestDamaged", "it takes more memory than a parser may have")
    except Exception as error:
        # Hostile bytes meet parsers that were not all written for them: whatever one trips over
        # is damage of this file.
        what = f"{type(error).__name__}: {error} ({_innermost(error)})"
        _refuse(frames, "GuestDamaged", what)
    else:
        frames.send(FrameKind.BYTES if plain else FrameKind.RESULT, content)


def _refuse(frames: FrameSocket, kind: str, message: str) -> None:
    text = message.encode(errors="replace").decode()[:_MESSAGE_MAX]
    frames.send(FrameKind.ERROR, pack((kind, text)))


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
