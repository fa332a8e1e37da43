"""Takes everything away from this process but its memory and its open descriptors.

Decides which rights a parser keeps: none of root's, no network, no files, no processes; a system
call filter and resource limits. Irrevocable. Knows nothing of what the process does afterwards.
"""

from __future__ import annotations

import os
import resource
from typing import Any, Final

NOBODY: Final = 65534
MEMORY_MAX: Final = 1 << 30
"""Bytes of address space: an interpreter with its libraries takes 200 MB of them."""
CPU_MAX_S: Final = 3600
"""In its whole life; what one request may take is watched by the parent."""
_LIMITS: Final = {
    resource.RLIMIT_AS: MEMORY_MAX,
    resource.RLIMIT_CPU: CPU_MAX_S,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 0,
    resource.RLIMIT_NPROC: 0,
}
_CALLS: Final = (
    # talking through descriptors that are open already
    *("read", "write", "recvfrom", "sendto", "recvmsg", "sendmsg", "poll", "ppoll", "close"),
    # memory (mmap and mprotect: below), threads' locks, signals
    *("munmap", "mremap", "brk", "madvise", "futex", "set_robust_list", "rseq", "sched_yield"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    # what a runtime asks of itself
    *("clock_gettime", "gettimeofday", "getrandom", "getpid", "gettid", "getrusage"),
    *("exit", "exit_group"),
)
_MAPPING_CALLS: Final = ("mmap", "mprotect")
_EPERM: Final = 1
_PROT_EXEC: Final = 4


class SandboxMissing(Exception):
    """This machine cannot confine a process; the message says what is missing."""


def confine() -> None:
    """From now on this process can compute, and use the descriptors it has, and nothing else.

    Raises SandboxMissing; the process must end then.
    """
    filter_ = _system_call_filter()
    _become_nobody()
    for limit, value in _LIMITS.items():
        resource.setrlimit(limit, (value, value))
    filter_.load()


def _become_nobody() -> None:
    if os.geteuid() != 0:
        return  # an ordinary user has nothing to give away but files, which the filter closes
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _system_call_filter() -> Any:
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise SandboxMissing(
            f"libseccomp is missing ({error}); guest filesystems are read behind a system call "
            "filter only: install the package libseccomp2"
        ) from error
    # Refused, not killed: a library that asks for a file it does not need can go on.
    made = pyseccomp.SyscallFilter(pyseccomp.ERRNO(_EPERM))
    for name in _CALLS:
        made.add_rule(pyseccomp.ALLOW, name)
    for name in _MAPPING_CALLS:
        # Nothing that was not there from the beginning may be executed.
        no_code = pyseccomp.Arg(2, pyseccomp.MASKED_EQ, _PROT_EXEC, 0)
        made.add_rule(pyseccomp.ALLOW, name, no_code)
    return made
