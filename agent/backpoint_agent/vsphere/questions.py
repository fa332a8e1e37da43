"""A VM's pending question: answered as the job says, or told once as an alarm.

Nothing waits for a person: whoever waits for the VM calls `QuestionWatch.look` meanwhile, and gives
up at its own limit.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from backpoint_agent.errors import VSphereError
from backpoint_agent.settings.model import QuestionPolicy
from backpoint_agent.vsphere.vcenter import VCenter


class QuestionWatch:
    """Looks at one VM. For one thread."""

    def __init__(
        self,
        vcenter: VCenter,
        vm: str,
        policies: Iterable[QuestionPolicy],
        tell: Callable[[str], None],
    ) -> None:
        """tell: called with each question, once: what was asked and what was answered."""
        self._vcenter = vcenter
        self._machine = vcenter.object("VirtualMachine", vm)
        self._policies = tuple(policies)
        self._tell = tell
        self._told: set[str] = set()

    def look(self) -> None:
        """Answer what is pending. Raises nothing: trouble with answering is told."""
        try:
            runtime = self._vcenter.call("looking for a question", lambda: self._machine.runtime)
            question = runtime.question
            if question is not None and question.id not in self._told:
                self._told.add(question.id)
                self._deal_with(question)
        except VSphereError as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                self._tell(f"cannot see whether the VM asks something: {error}")

    def _deal_with(self, question: Any) -> None:
        text = str(question.text)[:500]
        choice = self._choice(question)
        if choice is None:
            self._tell(f"the VM asks, and no policy answers: {text!r}")
            return
        key, label = choice
        self._vcenter.call(
            "answering the VM's question",
            lambda: self._machine.AnswerVM(questionId=question.id, answerChoice=key),
            repeat=False,
        )
        self._tell(f"the VM asked {text!r}; answered {label!r} as the job says")

    def _choice(self, question: Any) -> tuple[str, str] | None:
        for policy in self._policies:
            if fnmatch.fnmatchcase(str(question.text).lower(), policy.text.lower()):
                for choice in question.choice.choiceInfo:
                    if policy.answer.lower() in (choice.label.lower(), choice.key.lower()):
                        return choice.key, choice.label
        return None
