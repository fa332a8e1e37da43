"""The record of a running export."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpoint_fusefs.nfs.export_folder import ExportFolder
from backpoint_fusefs.nfs.running_export import RunningExport, read_export, write_export
from backpoint_fusefs.process_mark import process_mark
from backpoint_repo.errors import UsageError


def _export() -> RunningExport:
    return RunningExport(
        repository="00" * 16,
        process=process_mark(os.getpid()).decode(),
        address="127.0.0.1",
        nfs_port=2049,
        mount_port=20048,
        path="/backpoint",
        mount="/run/x/mount",
        sessions="/var/lib/x",
        read_only=False,
        versions=(3, 4),
        allowed=("127.0.0.0/8",),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """By its owner alone."""
    folder = ExportFolder(tmp_path)
    assert read_export(folder) is None
    write_export(folder, _export())
    assert read_export(folder) == _export()
    assert stat.S_IMODE(folder.state.stat().st_mode) == 0o600


def test_a_dead_export_is_none(tmp_path: Path) -> None:
    """Neither a process that ended nor another one with its number counts as running."""
    folder = ExportFolder(tmp_path)
    with subprocess.Popen(["true"]) as process:
        pass
    write_export(folder, replace(_export(), process=f"{process.pid} 12345"))
    assert read_export(folder) is None
    write_export(folder, replace(_export(), process=f"{os.getpid()} 1"))
    assert read_export(folder) is None


def test_the_record_that_is_printed_names_the_process(tmp_path: Path) -> None:
    """Programs take it from standard output, as JSON."""
    record = json.loads(json.dumps(_export().as_json()))
    assert record["type"] == "export"
    assert record["pid"] == os.getpid()
    assert record["versions"] == [3, 4]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(),
        st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
            lambda value: json.dumps(value).encode()
        ),
        st.fixed_dictionaries(
            {"versions": st.none() | st.text(), "allowed": st.none(), "process": st.text()}
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_what_this_version_did_not_write_is_told(tmp_path: Path, content: bytes) -> None:
    """Never a traceback, never a running export."""
    folder = ExportFolder(tmp_path)
    folder.state.write_bytes(content)
    with pytest.raises(UsageError, match="not written by this version"):
        read_export(folder)
