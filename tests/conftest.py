"""Rules for every test run: nothing is skipped in CI, nothing stays mounted, the seed is printed.

Decides when a run as a whole has failed although each test passed. Knows nothing of single tests.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from leftovers import Leftovers, clear, find_leftovers

_IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
_RULES = pytest.StashKey["_RunRules"]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the hypothesis profile; in CI also a seed, so that a failure there can be repeated."""
    hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
    hypothesis.settings.register_profile(
        "ci", deadline=None, print_blob=True, derandomize=False, database=None
    )
    hypothesis.settings.load_profile("ci" if _IN_CI else "dev")
    # Hypothesis reads this option after us; a seed given by hand wins. It is not set outside CI,
    # because a fixed seed stops hypothesis from trying the failures it remembers first.
    if _IN_CI and config.getoption("hypothesis_seed") is None:
        config.option.hypothesis_seed = str(random.SystemRandom().getrandbits(32))
    config.pluginmanager.register(_RunRules(config), "backpoint-run-rules")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What we and our commands cache on this machine goes with the run."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


class _RunRules:
    """Counts skips while the tests run and looks for leftovers before and after."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._skips: list[str] = []
        self._left: Leftovers | None = None
        self._cleared = clear(find_leftovers(within=None))

    def pytest_report_header(self) -> list[str]:
        profile = "ci" if _IN_CI else "dev"
        seed = self._config.getoption("hypothesis_seed")
        repeat = f"repeat with --hypothesis-seed={seed}" if seed else "seed: new for each test"
        lines = [f"hypothesis: profile {profile}, {repeat}"]
        return lines + [f"cleared from a dead run: {what}" for what in self._cleared]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # An expected failure also counts as skipped, and is none: it ran.
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skips.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skips.append(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        # Fixtures of session scope end in here, and with them their mounts.
        yield
        self._left = find_leftovers(within=_own_folder(self._config))
        clear(self._left)
        if session.exitstatus == pytest.ExitCode.OK and (self._left or self._forbidden_skips()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for node in self._forbidden_skips():
            terminalreporter.write_line(f"FAILED: skipped in CI: {node}", red=True)
        for what in self._left or ():
            terminalreporter.write_line(f"FAILED: left behind by this run: {what}", red=True)

    def _forbidden_skips(self) -> list[str]:
        return self._skips if _IN_CI else []


def _own_folder(config: pytest.Config) -> Path:
    """Where this run makes its temporary files: what is mounted there is ours, and only ours."""
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    return factory.getbasetemp().resolve()
