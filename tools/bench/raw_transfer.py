"""How fast plain objects of 32 MiB go to a bucket and come back: the ceiling for whoever uses one.

`python tools/bench/raw_transfer.py put|get ENDPOINT BUCKET COUNT` prints the seconds of the
transfers alone. Eight threads, as many as saturate what is measured here; nothing is sealed,
chunked or looked up.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import obstore
from obstore.store import S3Store

OBJECT: Final = 32 << 20
THREADS: Final = 8


def main() -> None:
    verb, endpoint, bucket, count = sys.argv[1:]
    store = S3Store(
        bucket,
        prefix="raw",
        endpoint=endpoint,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    data = os.urandom(OBJECT)

    def put(number: int) -> None:
        obstore.put(store, f"{number:04}", data, use_multipart=False)

    def get(number: int) -> None:
        assert len(obstore.get(store, f"{number:04}").bytes()) == OBJECT

    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put if verb == "put" else get, range(int(count))))
    print(time.monotonic() - started)


if __name__ == "__main__":
    main()
