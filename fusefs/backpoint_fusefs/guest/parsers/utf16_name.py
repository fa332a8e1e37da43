"""Names that Windows wrote in UTF-16, with whatever a program put there, as UTF-8 without loss."""

from __future__ import annotations

from backpoint_fusefs.guest.filesystem import GuestDamaged


def name_bytes(name: bytes) -> bytes:
    """Half surrogate pairs are encoded by themselves, as ntfs-3g does."""
    text = name.decode("utf-16-le", "surrogatepass")
    if "/" in text or "\0" in text or text in ("", ".", ".."):
        raise GuestDamaged(f"a file is named {text!r}, which nothing can be")
    return text.encode("utf-8", "surrogatepass")
