"""Started as `python -I -m backpoint_fusefs.guest.worker DESCRIPTOR KIND streams|plain`."""

from __future__ import annotations

import sys

from backpoint_fusefs.guest.worker.server import main

if __name__ == "__main__":
    sys.exit(main())
