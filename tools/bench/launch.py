"""Run one command and report its time, CPU and memory; knows nothing of what it measures.

`python -I -S launch.py FD COMMAND...` writes one JSON object to FD. It is a process of its own
because Linux carries a forked process's peak RSS across exec: spawned straight from the harness,
every small command would seem to need the harness's memory. The floor is this file's 10 MB.
"""

import json
import os
import sys
import time


def main() -> int:
    report = int(sys.argv[1])
    argv = sys.argv[2:]
    os.set_inheritable(report, False)
    started = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    _, status, usage = os.wait4(pid, 0)
    figures = {
        "seconds": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss": usage.ru_maxrss * 1024,
    }
    os.write(report, json.dumps(figures).encode())
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
