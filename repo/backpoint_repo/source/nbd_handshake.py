"""How an NBD client and server agree: fixed newstyle greeting, options, the export's size.

Decides what is asked for: the default export, and for readers structured replies with
`base:allocation`. Trusts nothing the server says. Block sizes are deliberately not negotiated: a
server that was not asked must serve any offset, and 32 MiB is the largest request it must accept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from backpoint_repo.source.nbd_stream import NbdStream, readable

_GREETING_MAGIC, _OPTION_MAGIC, _OPTION_REPLY_MAGIC = (
    0x4E42444D41474943,
    0x49484156454F5054,
    0x0003E889045565A9,
)
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO, _OPT_STRUCTURED_REPLY, _OPT_SET_META_CONTEXT = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META_CONTEXT, _REP_ERROR = 1, 3, 4, 1 << 31
_INFO_EXPORT = 0
_FLAG_READ_ONLY, _FLAG_SEND_FLUSH = 2, 4

# A sane server stays far below these; a hostile one must not make us allocate or loop for more.
_OPTION_REPLY_LIMIT = 64 << 10
_OPTION_REPLIES_LIMIT = 64

_DEFAULT_EXPORT = struct.pack(">I", 0)  # it has an empty name


@dataclass(frozen=True)
class Export:
    """What was agreed. `size` in bytes; `context`: the id of `base:allocation`, if there is one."""

    size: int
    writable: bool
    structured: bool
    context: int | None


def negotiate(stream: NbdStream, *, structured: bool) -> Export:
    """Agree on the default export, with structured replies if wanted and the server has them.

    Leaves the stream usable. Raises SourceError.
    """
    stream.begin("handshake")
    magic, option_magic, flags = struct.unpack(">QQH", stream.receive(18))
    if (magic, option_magic) != (_GREETING_MAGIC, _OPTION_MAGIC) or not flags & _FIXED_NEWSTYLE:
        raise stream.broken("a greeting that is not NBD's")
    stream.send(struct.pack(">I", flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))
    structured = structured and any(
        kind == _REP_ACK for kind, _ in _option(stream, _OPT_STRUCTURED_REPLY, b"")
    )
    context = _allocation_context(stream) if structured else None
    size, transmission_flags = _go(stream)
    stream.usable = True
    writable = transmission_flags & (_FLAG_READ_ONLY | _FLAG_SEND_FLUSH) == _FLAG_SEND_FLUSH
    return Export(size, writable, structured, context)


def _allocation_context(stream: NbdStream) -> int | None:
    query = b"base:allocation"
    wanted = _DEFAULT_EXPORT + struct.pack(">II", 1, len(query)) + query
    context: int | None = None
    for kind, body in _option(stream, _OPT_SET_META_CONTEXT, wanted):
        if kind == _REP_META_CONTEXT and body[4:] == query:
            (context,) = struct.unpack(">I", body[:4])
    return context


def _go(stream: NbdStream) -> tuple[int, int]:
    """Size and transmission flags of the export."""
    found: tuple[int, int] | None = None
    for kind, body in _option(stream, _OPT_GO, _DEFAULT_EXPORT + struct.pack(">H", 0)):
        if kind & _REP_ERROR:
            raise stream.broken(f"a refusal of the export: {readable(body)}")
        if kind == _REP_INFO and len(body) == 12 and body[:2] == struct.pack(">H", _INFO_EXPORT):
            found = struct.unpack(">QH", body[2:])
    if found is None or found[0] >= 1 << 63:
        raise stream.broken(f"no credible size of the export: {found and found[0]}")
    return found


def _option(stream: NbdStream, option: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    stream.send(struct.pack(">QII", _OPTION_MAGIC, option, len(data)) + data)
    for _ in range(_OPTION_REPLIES_LIMIT):
        magic, answered, kind, length = struct.unpack(">QIII", stream.receive(20))
        if magic != _OPTION_REPLY_MAGIC or answered != option or length > _OPTION_REPLY_LIMIT:
            raise stream.broken(f"a malformed answer to option {option}")
        yield kind, stream.receive(length)
        if kind == _REP_ACK or kind & _REP_ERROR:
            return
    raise stream.broken(f"endless answers to option {option}")
