"""`backpoint protect`: how long points must stay, whatever anybody wants removed."""

from __future__ import annotations

import argparse
from typing import Final

from backpoint_repo.command_parser import describe

HELP: Final = "show or raise the minimum age of points"

_DESCRIPTION: Final = """
Show what the repository asks of everybody who works on it: the minimum age, before which `backpoint
prune` removes no point whatever its rules say, and the parity of packs. --min-age raises the
minimum age. It cannot be lowered, by nobody: a slip or an intruder must not be able to undo it. So
begin with less than you think of.

The age of a point counts from when it was made, or from the moment it shows if that is later.
"""
_EXAMPLES: Final = """
backpoint protect
backpoint protect --min-age 30d
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("--min-age", metavar="TIME", help="raise the minimum age to this, like 30d")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError where the minimum age would become lower, and what a store raises."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.features import refuse_unknown_features
    from backpoint_repo.opening import open_from
    from backpoint_repo.policy import Policy, age_text, put_policy, read_policy
    from backpoint_repo.sizes import parse_duration
    from backpoint_repo.terminal import print_fields, print_record

    repository = open_from(args)
    policy = read_policy(repository.sealed)
    if args.min_age is not None:
        wanted = parse_duration(args.min_age)
        if wanted < policy.min_age_s:
            raise UsageError(
                f"the minimum age is {age_text(policy.min_age_s)} and can only be raised, "
                f"not lowered to {age_text(wanted)}"
            )
        if wanted > policy.min_age_s:
            refuse_unknown_features(repository.sealed.store)
            raised = Policy(wanted, policy.parity)
            policy = put_policy(repository.sealed, raised, repository.clock)
    if args.json:
        parity = None if policy.parity is None else list(policy.parity)
        print_record({"type": "policy", "min_age_s": policy.min_age_s, "parity": parity})
        return 0
    packs = "none" if policy.parity is None else "{}+{}".format(*policy.parity)
    age = age_text(policy.min_age_s) if policy.min_age_s else "none"
    print_fields([("minimum age", age), ("parity", packs)])
    return 0
