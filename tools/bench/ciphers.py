"""AES-256-OCB of one sealed chunk by the two libraries at hand, alone and on two threads.

Run as `python tools/bench/ciphers.py`. Decides nothing; the choice is made in pyproject.toml.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from Crypto.Cipher import AES
from cryptography.hazmat.primitives.ciphers.aead import AESOCB3

_SIZE: Final = 42 << 10
_TIMES: Final = 4000
_THREADS: Final = 2


def main() -> None:
    """Print microseconds per chunk, best of three."""
    key, plain, bound = os.urandom(32), os.urandom(_SIZE), bytes(60)

    def pycryptodome(number: int) -> bytes:
        cipher = AES.new(key, AES.MODE_OCB, nonce=number.to_bytes(12, "little"), mac_len=16)
        cipher.update(bound)
        return b"".join((cipher.encrypt(plain), cipher.encrypt(), cipher.digest()))

    def openssl(number: int) -> bytes:
        return AESOCB3(key).encrypt(number.to_bytes(12, "little"), plain, bound)

    assert pycryptodome(7) == openssl(7)
    for seal in (pycryptodome, openssl):
        alone = min(_time(seal) for _ in range(3))
        together = min(_time_threads(seal) for _ in range(3)) / _THREADS
        print(f"{seal.__name__:14} {alone:6.1f} us alone, {together:6.1f} us on {_THREADS} threads")


def _time(seal: Callable[[int], bytes]) -> float:
    start = time.perf_counter()
    for number in range(_TIMES):
        seal(number)
    return (time.perf_counter() - start) / _TIMES * 1e6


def _time_threads(seal: Callable[[int], bytes]) -> float:
    threads = [threading.Thread(target=_time, args=(seal,)) for _ in range(_THREADS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) / _TIMES * 1e6


if __name__ == "__main__":
    main()
