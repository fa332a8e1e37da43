"""Reading the configuration: all mistakes at once, each with its line, in TOML's terms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.errors import ConfigMistakes
from backpoint_agent.settings.model import Job, SecretSettings, Selection, Settings, VCenterSettings
from backpoint_agent.settings.read import (
    LARGEST,
    examine_settings,
    read_settings_file,
    settings_path,
)
from backpoint_repo.errors import UsageError
from config_text import FOLDER, VALID, right, with_job, with_vcenter, wrong


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            with_job("limits.machines_at_once = 0\n"),
            "f:12: jobs.nightly.limits.machines_at_once: must be at least 1, is 0",
        ),
        (
            with_job("limits.per_host = 0x10000000000000000000\n"),
            "f:12: jobs.nightly.limits.per_host: must be at most 1000, is far beyond it",
        ),
        (
            with_job("change_tracking.audit.probability = 1.5\n"),
            "f:12: jobs.nightly.change_tracking.audit.probability: must be at most 1, is 1.5",
        ),
        (with_job("rpo_hours = 0\n"), "f:12: jobs.nightly.rpo_hours: must be more than 0, is 0"),
        (
            with_job("quiesce.retry_after_s = inf\n"),
            "f:12: jobs.nightly.quiesce.retry_after_s: must be at most 2592000, is inf",
        ),
        (
            with_job("rpo_hours = '4'\n"),
            "f:12: jobs.nightly.rpo_hours: a number is expected, not a string",
        ),
        (
            with_job("templates = 1\n"),
            "f:12: jobs.nightly.templates: true or false is expected, not a number",
        ),
        (
            with_job("limits.retries = true\n"),
            "f:12: jobs.nightly.limits.retries: a whole number is expected, not true or false",
        ),
        (
            with_job("limits.retries = 1.5\n"),
            "f:12: jobs.nightly.limits.retries: a whole number is expected, "
            "not a number with a fraction",
        ),
        (
            with_job("schedule = 22:00:00\n"),
            "f:12: jobs.nightly.schedule: a string is expected, not a time of day "
            "(quotes are missing)",
        ),
        (
            with_job("transports = 'https'\n"),
            "f:12: jobs.nightly.transports: an array is expected, not a string",
        ),
        (with_job("limits = []\n"), "f:12: jobs.nightly.limits: a table is expected, not an array"),
        (
            with_job("limitz = {}\n"),
            'f:12: jobs.nightly.limitz: unknown key; did you mean "limits"?',
        ),
        (
            with_vcenter("password.value = 'x'"),
            "f:9: Cannot mutate immutable namespace vcenters.main.password at column 21",
        ),
        (
            VALID.replace("[repository]", "[repositry]"),
            'f:1: repositry: unknown key; did you mean "repository"?',
        ),
        (
            VALID.replace('address = "vc1.example.com"\n', ""),
            "f:5: vcenters.main.address: is missing",
        ),
        (
            with_job("quiesce = {\n"),
            "f:12: Invalid initial character for a key part at column 12",
        ),
        (
            with_job("[jobs.nightly]\n"),
            "f:12: Cannot declare jobs.nightly twice at column 14",
        ),
        (with_job('a = "\n'), "f:12: Illegal character '\\n' at column 6"),
        (
            with_job("unfit_disks = 'skp'\n"),
            'f:12: jobs.nightly.unfit_disks: must be one of "refuse", "skip"; did you mean "skip"?',
        ),
        (
            with_job("unfit_disks = 1\n"),
            'f:12: jobs.nightly.unfit_disks: must be one of "refuse", "skip", not a number',
        ),
        (with_job("transports = []\n"), "f:12: jobs.nightly.transports: must not be empty"),
        (
            with_job("exclude.names = [' ']\n"),
            "f:12: jobs.nightly.exclude.names[0]: must not be empty",
        ),
        (
            with_job('exclude.names = [\n"a",\n"b\\u0007"]\n'),
            "f:14: jobs.nightly.exclude.names[1]: must be one line without control characters",
        ),
        (
            with_job('exclude.names = [\n"a",\n"b",\n"a"]\n'),
            "f:15: jobs.nightly.exclude.names[2]: is in this array already",
        ),
    ],
)
def test_mistakes_are_told_with_line_and_key(text: str, told: str) -> None:
    """What is wrong, where, and what would be right."""
    assert told in wrong(text)


def test_all_mistakes_come_at_once() -> None:
    """Wrong keys, wrong values, and what is wrong between keys and between tables."""
    text = VALID.replace('"*"', "7").replace('{ file = "password" }', '"secret"') + (
        "vcenter = 'other'\ntransports = ['vddk', 'carrier-pigeon']\nwindow.start = '9'\n"
        "quiesce.pre_freeze = { program = '' }\n[jobs.nightly.retention]\n[wait]\n"
    )
    keys = [line.split(": ")[1] for line in wrong(text)]
    assert keys == [
        "vcenters.main.password",
        "jobs.nightly.select.names[0]",
        "jobs.nightly.vcenter",
        "jobs.nightly.transports[0]",
        "jobs.nightly.transports[1]",
        "jobs.nightly.window.end",
        "jobs.nightly.window.start",
        "jobs.nightly.quiesce.pre_freeze",
        "jobs.nightly.quiesce.pre_freeze.program",
        "jobs.nightly.retention",
        "wait",
    ]


def test_a_secret_in_the_file_is_refused_and_not_shown() -> None:
    """Wherever it was put, the refusal says where secrets go, and does not repeat it."""
    for entry in ("'hunter2'", "{ value = 'hunter2' }", "['hunter2']", "{ file = ['hunter2'] }"):
        told = "\n".join(wrong(VALID.replace('{ file = "password" }', entry)))
        assert "f:8: vcenters.main.password" in told
        assert "hunter2" not in told
    plain = wrong(VALID.replace('{ file = "password" }', "'hunter2'"))
    assert plain == [
        "f:8: vcenters.main.password: secrets do not stand in this file; say where it is: "
        '{ file = "..." }, { command = "..." } or { environment = "..." }'
    ]


def test_what_is_read() -> None:
    """Names from the tables, paths made absolute, thumbprints in one form, the vCenter of a job."""
    thumbprint = "aabb" * 16
    settings = right(with_vcenter(f"thumbprint = '{thumbprint}'\n"))
    vcenter, job = settings.vcenters["main"], settings.jobs["nightly"]
    assert (vcenter.name, job.name) == ("main", "nightly")
    assert settings.vcenter_of(job) is vcenter
    assert vcenter.password == SecretSettings(file=FOLDER / "password")
    assert settings.repository.credential == FOLDER / "agent.credential"
    assert vcenter.thumbprint == ":".join(["AA", "BB"] * 16)
    assert settings.state == Path("/var/lib/backpoint")


def test_the_default_order_leaves_out_what_is_not_configured() -> None:
    """And is known not to be the user's own."""
    default = right(VALID)
    assert default.transports_of(default.jobs["nightly"]) == ("https", "export")
    assert not default.jobs["nightly"].transports_chosen
    chosen = right(VALID + "transports = ['export', 'vddk']\n[transports.vddk]\n")
    assert chosen.transports_of(chosen.jobs["nightly"]) == ("export", "vddk")
    assert chosen.jobs["nightly"].transports_chosen
    more = right(VALID + "[transports.vddk]\n[transports.datastores]\nnfs = '/mnt/nfs'\n")
    assert more.transports_of(more.jobs["nightly"]) == ("vddk", "datastore", "https", "export")


def test_a_rate_is_also_had_as_a_number() -> None:
    """In bytes a second."""
    assert right(VALID + "limits.bandwidth = '2M'\n").jobs["nightly"].limits.bytes_per_s == 2 << 20
    assert right(VALID).jobs["nightly"].limits.bytes_per_s is None


def test_settings_made_in_code_are_checked_too() -> None:
    """As the file's, also between tables; names are filled in."""
    password = SecretSettings(environment="P")
    vcenter = VCenterSettings(address="vc1", user="u", password=password)
    job = Job(select=Selection(names=("*",)), transports=("hotadd",))
    parts: dict[str, Any] = {"repository": {"path": "/srv"}, "vcenters": {"a": vcenter}}
    assert Settings(**parts).vcenters["a"].name == "a"
    with pytest.raises(ValueError, match=r"needs \[transports.hotadd\]"):
        Settings(**parts, jobs={"j": job})


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to the file's own folder, however it is named; every mistake in one
    error, a line each."""
    file = tmp_path / "backpoint.toml"
    file.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert read_settings_file(file).repository.credential == tmp_path / "agent.credential"
    monkeypatch.chdir(tmp_path)
    named = read_settings_file(Path("backpoint.toml"))
    assert named.repository.credential == tmp_path / "agent.credential"
    file.write_text(VALID.replace("path", "paht"))
    with pytest.raises(ConfigMistakes) as told:
        read_settings_file(file)
    assert str(told.value).splitlines() == [
        f"{file}:1: repository.path: is missing",
        f'{file}:2: repository.paht: unknown key; did you mean "path"?',
    ]


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, too large: one sentence each."""
    with pytest.raises(UsageError, match="No such file"):
        read_settings_file(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_settings_file(tmp_path)
    file = tmp_path / "x.toml"
    file.write_bytes(b"# fine\n\nstate = '\xff'\n")
    with pytest.raises(ConfigMistakes, match=r"x\.toml:3: is not UTF-8 here"):
        read_settings_file(file)
    with file.open("wb") as large:
        os.truncate(large.fileno(), LARGEST + 1)
    with pytest.raises(ConfigMistakes, match="larger than 1 MiB"):
        read_settings_file(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = " + "[" * 100_000 + "]" * 100_000, "values nested too deeply"),
        ("a = " + "{b=" * 100_000, "values nested too deeply"),
        ("# x\n" + "a." * 100_000 + "b = 1", "f:2: has a key of more than 64 parts"),
        ("a = " + "9" * 100_000, "a number is too long"),
        ("\0", "Invalid statement"),
        ('a = """\n\n', "Unterminated string at the file's end"),
    ],
)
def test_absurd_files_are_refused(text: str, told: str) -> None:
    """Without much memory, and never with a traceback."""
    assert told in "\n".join(wrong(text))


JUNK = st.recursive(
    st.sampled_from(["0", "-1", "1e308", "nan", "true", "''", "'x'", "'[key]'", "07:00:00", "[]"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.builds("{{ {} = {} }}".format, st.sampled_from(["names", "x", '"[key]"']), inner),
    ),
    max_leaves=4,
)
LINE = st.integers(min_value=0, max_value=VALID.count("\n"))


@given(
    st.lists(
        st.tuples(
            LINE,
            st.sampled_from(
                [
                    "limits",
                    "select",
                    "vcenter",
                    "transports",
                    "password",
                    "window",
                    "exclude_disks",
                    "quiesce",
                    "credential",
                    "thumbprint",
                ]
            ),
            JUNK,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_value_anywhere_is_told_in_our_words(junk: list[tuple[int, str, str]]) -> None:
    """No words of pydantic's, no line outside of the file, no two lines in one."""
    lines = VALID.splitlines()
    for place, key, value in junk:
        lines.insert(place, f"{key} = {value}")
    found = examine_settings("\n".join(lines), FOLDER)
    for mistake in found if isinstance(found, list) else ():
        told = mistake.told("f")
        assert 1 <= mistake.line <= len(lines)
        assert "\n" not in told
        assert "nput should" not in told
        assert "Value error" not in told
        assert "alidat" not in told


def test_the_file_is_named_somewhere() -> None:
    """On the command line, or else in the environment."""
    environment = {"BACKPOINT_CONFIG": "/etc/b.toml"}
    assert settings_path(None, environment) == Path("/etc/b.toml")
    assert settings_path(Path("a.toml"), environment) == Path("a.toml")
    with pytest.raises(UsageError, match="BACKPOINT_CONFIG"):
        settings_path(None, {})
