"""Do the tests notice? Changes one decision of a module at a time and runs tests until one fails.

    python tools/mutate.py repo/backpoint_repo/trash.py -- tests/repo/test_trash.py

A mutant that all tests pass is printed with SURVIVED: a test is missing, or nothing can be seen of
the change. Decides what is changed; nothing is written, because the changed code is handed to the
import of a forked process. Exits with 1 where the tests fail without any change.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, Final

import hypothesis
import numpy as np  # noqa: F401  (once, not in each of the forked processes)
import pytest

_KILLED: Final = (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
_POLL_S: Final = 0.02
_OPERATORS: Final[dict[type[ast.AST], type[ast.AST]]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult},
    **{ast.Div: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift},
}
_NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_UNSEEN: Final = {"decorator_list", "annotation", "returns", "msg", "format_spec"}
"""Parts of the syntax that decide nothing."""


@dataclass(frozen=True)
class Mutant:
    line: int
    change: str
    code: CodeType


def mutants(path: Path) -> Iterator[Mutant]:
    """All of a module, one change each."""
    tree = ast.parse(path.read_text())
    for parent, name, at, node in list(_parts(tree)):
        before = _text(parent, node)
        line = int(getattr(node, "lineno", 0) or getattr(parent, "lineno", 0))
        for changed in _changes(parent, name, node):
            if ast.dump(changed) == ast.dump(node):
                continue
            _replace(parent, name, at, changed)
            code = compile(ast.fix_missing_locations(tree), str(path), "exec")
            yield Mutant(line, f"{before}  ->  {_text(parent, changed)}", code)
            _replace(parent, name, at, node)


def _parts(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, Any]]:
    """All that can decide something below a node: what it is in, in which field, and where."""
    for name, value in ast.iter_fields(parent):
        for at, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            flag = isinstance(node, ast.keyword) and node.arg == "strict"
            if name not in _UNSEEN and not flag:
                yield parent, name, at, node
                if isinstance(node, ast.AST):
                    yield from _parts(node)


def _changes(parent: ast.AST, name: str, node: Any) -> Iterator[ast.AST]:
    if other := _OPERATORS.get(type(node)):
        yield other()
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Name(id=known) if known in _NAMES:
            yield ast.Name(_NAMES[known], ast.Load())
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Continue() | ast.Break() | ast.Return(value=None):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
    if name in ("test", "ifs") and isinstance(node, ast.expr):
        yield ast.Constant(True)
        yield ast.Constant(False)
    if isinstance(parent, ast.ExceptHandler) and isinstance(node, ast.Tuple):
        for at in range(len(node.elts)):
            yield ast.Tuple(node.elts[:at] + node.elts[at + 1 :], ast.Load())


def _replace(parent: ast.AST, name: str, at: int | None, node: Any) -> None:
    if at is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[at] = node


def _text(parent: ast.AST, node: Any) -> str:
    """An operator says nothing without what it works on."""
    whole = parent if isinstance(node, ast.operator | ast.cmpop | ast.boolop) else node
    return " ".join(ast.unparse(whole).split())[:90] if isinstance(whole, ast.AST) else ""


class _Swift:
    """Hypothesis does not look for the smallest failure, and remembers none."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        settings = hypothesis.settings
        settings.register_profile("swift", deadline=None, database=None, phases=phases)
        settings.load_profile("swift")


def _run(path: Path, code: CodeType, arguments: list[str], folder: str) -> int:
    """In a forked process: the exit code of the tests with this code in place of the module's."""
    usual = SourceFileLoader.get_code
    loaded = []

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if not os.path.samefile(self.path, path):
            return usual(self, fullname)
        loaded.append(fullname)
        return code

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--basetemp={folder}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    result = pytest.main([*options, *arguments], [_Swift()])
    return int(result) if loaded else int(pytest.ExitCode.USAGE_ERROR)


def _fork(path: Path, code: CodeType, arguments: list[str], folder: str) -> int:
    if pid := os.fork():
        return pid
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    result = -1
    try:
        result = _run(path, code, arguments, folder)
    finally:
        os._exit(result)


def _outcome(pid: int, limit_s: float) -> int | None:
    """The exit code of a process; None for one that took too long and was killed."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL_S)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("module", type=Path)
    parser.add_argument("--sample", type=int, help="no more mutants than this, chosen by lot")
    parser.add_argument("--line", type=int, action="append", help="only mutants of these lines")
    parser.add_argument("tests", nargs="+", help="for pytest, the quick ones first")
    args = parser.parse_args()
    chosen = [one for one in mutants(args.module) if not args.line or one.line in args.line]
    if args.sample is not None and args.sample < len(chosen):
        chosen = sorted(random.Random(0).sample(chosen, args.sample), key=lambda one: one.line)
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        sub = os.path.join(folder, "run")
        begun = time.monotonic()
        intact = compile(args.module.read_text(), str(args.module), "exec")
        if _outcome(_fork(args.module, intact, args.tests, sub), 3600) != pytest.ExitCode.OK:
            print("the tests fail without any change")
            return 1
        limit_s = 10 + 4 * (time.monotonic() - begun)
        survivors = 0
        for mutant in chosen:
            result = _outcome(_fork(args.module, mutant.code, args.tests, sub), limit_s)
            shutil.rmtree(sub, ignore_errors=True)
            word = "SURVIVED" if result == 0 else "killed" if result in _KILLED else f"({result})"
            survivors += result == 0
            print(f"{word:8}  {args.module.name}:{mutant.line}  {mutant.change}", flush=True)
    print(f"{args.module}: {len(chosen)} mutants, {survivors} survived")
    return 0


if __name__ == "__main__":
    sys.exit(main())
