"""What the sources say of an entry: docstrings, and the tests that hold it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cab import Attention

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "attentions"
COMPARED_WITH = ("softmax", "softmax-exact", "none")
"""Entries that a test of another may name, to compare it with: naming them makes no test theirs"""


@dataclass(frozen=True)
class Held:
    """Tests of one file that hold an entry."""

    path: str
    """From the root"""
    tests: tuple[str, ...]
    """Names as words"""


def module_docstring(cls: type[Attention]) -> str:
    """Of the file that the entry is defined in."""
    return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")


def class_docstring(cls: type[Attention]) -> str:
    """Its own, not an inherited one."""
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "")


def reference_docstring(cls: type[Attention]) -> str:
    """The first paragraph; lines joined. Of entries whose layers alternate, that of their own
    layers.
    """
    plain = getattr(cls, "mixed_plainly", cls.reference)
    words = inspect.getdoc(plain) or ""
    return " ".join(words.split("\n\n")[0].split())


def source_path(cls: type[Attention]) -> str:
    """From the root."""
    return Path(inspect.getfile(cls)).resolve().relative_to(ROOT).as_posix()


def tests_of(name: str, cls: type[Attention], names: Sequence[str]) -> list[Held]:
    """Tests that are about an entry: all of the file that has its module's or its folder's name,
    and those of the others that name it and no other entry, but for what it is compared with.

    Args:
        name: the entry's id.
        cls: its class.
        names: ids of all entries.
    """
    path = Path(source_path(cls))
    own = {f"test_{path.stem}.py", f"test_{path.parent.name}.py"}
    found = []
    for file, functions in _functions().items():
        kept = [
            test
            for test, words in functions.items()
            if Path(file).name in own or _is_about(name, words, names)
        ]
        if kept:
            found.append(Held(file, tuple(_as_words(test) for test in kept)))
    return sorted(found, key=lambda held: (Path(held.path).name not in own, held.path))


def _is_about(name: str, words: frozenset[str], names: Sequence[str]) -> bool:
    others = {other for other in names if other in words} - {name, *COMPARED_WITH}
    return name in words and name not in COMPARED_WITH and not others


def _as_words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


@cache
def _functions() -> Mapping[str, Mapping[str, frozenset[str]]]:
    """Test functions by file, each with the strings in it and in the constants that it names."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: statement.value
            for statement in tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        functions = {
            node.name: frozenset(_strings(node, constants))
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        }
        found[path.relative_to(ROOT).as_posix()] = functions
    return found


def _strings(node: ast.AST, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Name) and part.id in constants:
            yield from (
                inner.value
                for inner in ast.walk(constants[part.id])
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
            )
