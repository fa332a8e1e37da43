"""What the options of `backpoint boot` mean together."""

from __future__ import annotations

import argparse
import socket

import pytest

from backpoint_fusefs.boot.booted_point import BootTerms
from backpoint_fusefs.boot.command_options import terms_of
from backpoint_fusefs.boot.machine_plan import Forward
from backpoint_fusefs.commands import boot
from backpoint_repo.command_parser import CommandParser
from backpoint_repo.errors import UsageError


def _args(*words: str) -> argparse.Namespace:
    parser = CommandParser(prog="boot")
    parser.set_defaults(repo=None, json=False, verbose=False)
    boot.add_arguments(parser)
    return parser.parse_args(["web@latest", *words])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--memory", "1"], "--memory"),
        (["--memory", "much"], "not a size"),
        (["--cores", "0"], "--cores"),
        (["--timeout", "nan"], "--timeout"),
        (["--timeout", "-1"], "--timeout"),
        (["--forward", "80"], "--forward"),
        (["--forward", "80:0"], "--forward"),
        (["--forward", "80:x:1:99999"], "--forward"),
        (["--forward", "80:x:1"], "--forward"),
        (["--forward", "8081:1", "--forward", "8081:2"], "twice"),
        (["--until", ""], "--until is empty"),
        (["--network", "none", "--isolated"], "--network none"),
        (["--network", "none", "--forward", "80:80"], "--network none"),
        (["--console", "--json"], "stdout"),
    ],
)
def test_wrong_use_is_told(words: list[str], why: str) -> None:
    """In one sentence, before anything is begun."""
    with pytest.raises(UsageError, match=why):
        terms_of(_args(*words))


def test_a_port_that_is_taken_is_told() -> None:
    """QEMU would say that a rule cannot be set up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 cannot be had"):
            terms_of(_args("--forward", f"{port}:80"))


@pytest.mark.parametrize("words", [["--host", "esx1"], ["--name", "new"], ["--keep-uuid"]])
def test_what_is_for_a_vcenter_boots_nothing_here(words: list[str]) -> None:
    """Whoever forgets --vcenter does not want the machine here."""
    with pytest.raises(UsageError, match=f"{words[0]} goes with --vcenter"):
        boot.run(_args(*words))


@pytest.mark.parametrize(
    ("words", "network", "isolated"),
    [
        ([], "none", True),
        (["--network", "none"], "none", True),
        (["--isolated"], "user", True),
        (["--forward", "8080:80"], "user", True),
        (["--network", "user"], "user", False),
        (["--network", "user", "--isolated"], "user", True),
    ],
)
def test_only_network_user_leads_out(words: list[str], network: str, isolated: bool) -> None:
    """A forward needs a network, and none that leads anywhere."""
    terms = terms_of(_args(*words))
    assert (terms.network, terms.isolated) == (network, isolated)


def test_everything_that_was_asked_for_is_in_the_terms() -> None:
    """In the units of a machine."""
    words = "--vnc --memory 1G --cores 3 --disk-bus sata --forward 1:2 --forward 3:10.0.0.4:5"
    assert terms_of(_args(*words.split())) == BootTerms(
        "user",
        True,
        (Forward(1, 2), Forward(3, 5, "10.0.0.4")),
        display="vnc",
        memory=1024,
        cores=3,
        disk_bus="sata",
    )
