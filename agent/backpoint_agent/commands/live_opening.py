"""What `boot --vcenter`, `live migrate` and `live end` have in common: their options, what they
open, and how mistakes of the configuration are told.

Decides which of the configuration's vCenters is meant. Knows no step of any of the three.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import OPENS_REPOSITORY

if TYPE_CHECKING:
    from backpoint_agent.effect import Effect
    from backpoint_agent.reaping.apply import Means
    from backpoint_agent.reaping.step import Outcome
    from backpoint_agent.settings.model import Settings
    from backpoint_agent.state_folder import StateFolder
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.vcenter import VCenter

ENVIRONMENT: Final = f"""\
{OPENS_REPOSITORY}\
  BACKPOINT_CONFIG              the configuration, where -c is not given; it names the repository
                                and its passphrase where neither -r nor the environment does
"""
EXIT_CODES: Final = """\
exit codes:
  0 done   2 wrong use   4 the repository failed   5 a key or passphrase is wrong or not enough
  6 the session cannot be written   7 vCenter or the session did not do it   130 interrupted
"""


@dataclass(frozen=True)
class Desk:
    """means: of the vCenter that is meant."""

    settings: Settings
    state: StateFolder
    means: Means


def add_config_option(parser: argparse._ActionsContainer) -> None:
    """`-c FILE`."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, help="the agent's configuration (TOML)"
    )


def tell_mistakes(act: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run it; the configuration's mistakes are told on a line each. The exit code."""
    from backpoint_agent.errors import ConfigMistakes
    from backpoint_repo.terminal import say

    try:
        return act(args)
    except ConfigMistakes as mistakes:
        for line in str(mistakes).splitlines():
            say(line)
        return mistakes.exit_code


@contextmanager
def opened_desk(settings: Settings, name: str | None, uuid: str) -> Iterator[Desk]:
    """name: of the vCenter as the configuration calls it; without it the only one, or the one with
    this uuid. Raises UsageError, and as logging in does."""
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.reaping.apply import Means
    from backpoint_agent.state_folder import make_state_folder
    from backpoint_agent.stopping import Stop

    stop = Stop()
    with ExitStack() as opened:
        vcenter = _connect(settings, name, uuid, stop)
        opened.callback(vcenter.close)
        state = make_state_folder(settings.state)
        ledger = opened.enter_context(Ledger(state.ledger))
        means = Means(vcenter, ledger, settings.waits, settings.jobs, stop, settings.repository)
        yield Desk(settings, state, means)


@contextmanager
def desk_of_session(settings: Settings, session: str) -> Iterator[tuple[Desk, Effect]]:
    """The desk at the vCenter in which a VM of the session is, and its entry in the ledger.

    No other agent works on the VM meanwhile. Raises UsageError, Busy, and as logging in does.
    """
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.live.known_sessions import find_session
    from backpoint_agent.live.live_facts import live_facts
    from backpoint_agent.live.live_look import find_live
    from backpoint_agent.machine_lock import machine_lock
    from backpoint_agent.state_folder import make_state_folder
    from backpoint_repo.terminal import say

    with Ledger(make_state_folder(settings.state).ledger) as ledger:
        effect = find_session(ledger, session)
    with ExitStack() as held:
        desk = held.enter_context(opened_desk(settings, None, effect.vcenter))
        machine = find_live(desk.means.vcenter, live_facts(effect.facts))
        if machine is not None:
            held.enter_context(
                machine_lock(
                    desk.state.locks,
                    machine.identity,
                    machine.name,
                    "live",
                    limit_s=settings.waits.machine_lock_s,
                    stop=desk.means.stop,
                    on_wait=lambda holder: say(f"waiting for {holder}"),
                )
            )
        yield desk, effect


def say_outcomes(outcomes: Iterator[Outcome]) -> list[str]:
    """Do it all, telling each; what was done."""
    from backpoint_repo.terminal import say

    done = []
    for outcome in outcomes:
        if outcome.result == "done":
            done.append(outcome.said)
        else:
            say(f"{outcome.step.vm_name}: {outcome.said}")
    return done


def _connect(settings: Settings, wanted: str | None, uuid: str, stop: Stop) -> VCenter:
    from backpoint_agent.commands.opening import connect
    from backpoint_repo.errors import UsageError

    names = list(settings.vcenters)
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"no vCenter is called {wanted!r}; there are: {', '.join(names)}")
        return connect(settings, wanted, stop)
    for name in names:
        vcenter = connect(settings, name, stop)
        if not uuid or vcenter.uuid == uuid:
            return vcenter
        vcenter.close()
    raise UsageError(f"none of the configuration's vCenters is {uuid}: {', '.join(names)}")
