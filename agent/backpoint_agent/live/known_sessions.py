"""The VM of a session, in the ledger: found by the session's name, and ended step by step.

Decides which entry a user's word means, and that one a living process is at is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backpoint_agent.effect import Effect
from backpoint_agent.errors import Busy, TaskFailed
from backpoint_agent.ledger import Ledger
from backpoint_agent.live.live_facts import LiveFacts, live_facts
from backpoint_agent.reaping.apply import Means
from backpoint_agent.reaping.reap import effects_of, undo_effect
from backpoint_agent.reaping.step import Outcome
from backpoint_repo.errors import UsageError

_SHOWN_MAX: Final = 20


def find_session(ledger: Ledger, session: str) -> Effect:
    """Raises UsageError where no VM runs from it, Busy where somebody works on it just now."""
    known = [effect for effect in ledger.all_open() if effect.kind == "live-machine"]
    found = next((e for e in known if live_facts(e.facts).session == session), None)
    if found is None:
        names = ", ".join(sorted(live_facts(e.facts).session for e in known)[:_SHOWN_MAX])
        raise UsageError(f"no VM runs from a session {session!r}; there are: {names or 'none'}")
    if found.number not in {effect.number for effect in ledger.open_effects()}:
        raise Busy(f"{session}: another process is working on it")
    return found


def note(ledger: Ledger, effect: Effect, **facts: str) -> Effect:
    """Write down how far it has come. Raises Busy, UsageError where it is gone meanwhile."""
    with ledger.take_over(effect) as taken:
        if taken is None:
            raise UsageError(f"{live_facts(effect.facts).session}: it has been ended meanwhile")
        return ledger.learned(taken, facts)


def finish(means: Means, effect: Effect) -> Iterator[Outcome]:
    """Undo what there is to undo of session and VM, then the datastore where it is not used.

    Raises TaskFailed where session and VM could not be ended.
    """
    for outcome in undo_effect(means, effect):
        yield outcome
        if outcome.result != "done":
            raise TaskFailed(f"{effect.vm_name}: {outcome.said}")
    facts = live_facts(effect.facts)
    for other in effects_of(means):
        if _is_datastore_of(other, facts):
            yield from undo_effect(means, other)


def _is_datastore_of(effect: Effect, facts: LiveFacts) -> bool:
    return effect.kind == "live-datastore" and effect.facts.get("datastore") == facts.datastore
