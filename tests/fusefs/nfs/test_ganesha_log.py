"""What is read out of NFS-Ganesha's log, in lines as version 4.3 writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.nfs.ganesha_log import StartState, last_words, read_start

_HEAD = "21/11/2026 20:33:34 : epoch 6b02001d : vm : nfs-ganesha-16951[main] "
_SERVING = f"{_HEAD}nfs_start :NFS STARTUP :EVENT :             NFS SERVER INITIALIZED\n"
_NO_DBUS = f"{_HEAD}gsh_dbus_pkginit :DBUS :CRIT :dbus_bus_get failed (no such file)\n"
_PORT = (
    f"{_HEAD}Bind_sockets_V6 :DISP :WARN :Cannot bind NFS tcp6 socket, error 98 (Address already "
    "in use)\n"
    f"{_HEAD}Bind_sockets :DISP :FATAL :Error binding to V6 interface. Cannot continue.\n"
)
_ADDRESS = (
    f"{_HEAD}Bind_sockets_V6 :DISP :WARN :Cannot bind NFS udp6 socket, error 99 (Cannot assign "
    "requested address)\n"
)
_RPCBIND = f"{_HEAD}__Register_program :DISP :MAJ :Cannot register NFS V3 on UDP\n"
_NO_EXPORT = (
    f"{_HEAD}fsal_cfg_commit :CONFIG :CRIT :Could not create export for (/b) to (/tmp/exp)\n"
    f"{_HEAD}main :NFS STARTUP :WARN :No export entries found in configuration file !!!\n"
)


def test_it_serves_when_it_says_so() -> None:
    """A machine without D-Bus is no fault."""
    assert read_start(_NO_DBUS) == StartState(serving=False)
    assert read_start(_NO_DBUS + _SERVING) == StartState(serving=True)
    assert last_words(_NO_DBUS + _SERVING) == ""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (_PORT, "port"),
        (_ADDRESS, "address"),
        (_RPCBIND, "rpcbind"),
        (_NO_EXPORT + _SERVING, "cannot export"),
    ],
)
def test_faults_are_told_apart(log: str, said: str) -> None:
    """Also those with which it serves, but nothing."""
    assert said in read_start(log).fault


def test_the_last_bad_line_is_told_without_its_head() -> None:
    """Dates, processes and what does not matter are left out."""
    assert last_words(_PORT + _NO_DBUS) == "Error binding to V6 interface. Cannot continue."


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """A log is not trusted to be one."""
    read_start(text)
    assert "\n" not in last_words(text)
