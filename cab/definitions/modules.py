"""A source file, cut into definitions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from cab.definitions.canonical import (
    Piece,
    class_piece,
    method_piece,
    piece_of,
    without_docstring,
)
from cab.definitions.scopes import Imported, imports_of

RECORD_DECORATORS = frozenset({"register_attention", "register_task"})
_RECORDS = frozenset({"AttentionInfo", "TaskInfo"})

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Definition:
    """What binds one name at the top level of a module."""

    name: str
    piece: Piece
    """Of a class: its decorators, bases and what is no function in its body"""
    is_class: bool = False
    methods: dict[str, Piece] = field(default_factory=dict)
    bases: Piece = field(default_factory=Piece)
    subclass_hook: bool = False
    """Whether the class learns of its subclasses"""
    decorators: Piece = field(default_factory=Piece)
    """Of the record's own decorator nothing is said"""


@dataclass
class Module:
    """The definitions of one file."""

    path: Path
    definitions: dict[str, Definition]
    imports: dict[str, Imported]
    """Names that imports bind when the module is executed"""
    typing_imports: dict[str, Imported]
    """Names that are imported for type checkers, and may be served by ``__getattr__``"""
    stars: list[Imported]
    effects: Piece
    """Statements that change something else than a name of the module"""
    loaded: list[Imported]
    """Every module that is executed with this one"""
    dynamic_attributes: bool

    @property
    def is_package(self) -> bool:
        """Whether the file is a package's ``__init__.py``."""
        return self.path.name == "__init__.py"

    @property
    def lazy(self) -> bool:
        """Whether the module computes some of its names when they are asked for."""
        return "__getattr__" in self.definitions


def read_module(path: Path) -> Module:
    """Parse a file.

    Raises:
        SyntaxError, UnicodeDecodeError: it is no Python source.
        OSError: it cannot be read.
    """
    body = without_docstring(ast.parse(path.read_bytes(), str(path)).body)
    kept = [statement for statement in body if not _is_main_guard(statement)]
    typing = [s for block in kept if _is_typing(block) for s in ast.walk(block)]
    kept = [statement for statement in kept if not _is_typing(statement)]
    plain = [s for s in kept if not isinstance(s, ast.Import | ast.ImportFrom)]
    nested = [s for b in plain if not _is_definition(b) for s in ast.walk(b)]
    statements = [s for s in [*kept, *nested] if isinstance(s, ast.stmt)]
    bound = list(imports_of(statements))
    names: dict[str, list[ast.stmt]] = {}
    effects: list[ast.stmt] = []
    for statement in plain:
        targets = list(_bound_names(statement))
        for name in targets:
            names.setdefault(name, []).append(statement)
        if not targets:
            _attach(statement, names, effects)
    definitions = {name: _definition(name, found) for name, found in names.items()}
    pieces = [p for d in definitions.values() for p in (d.piece, *d.methods.values())]
    return Module(
        path=path,
        definitions=definitions,
        imports={name: imported for name, imported in bound if name != "*"},
        typing_imports=dict(imports_of(s for s in typing if isinstance(s, ast.stmt))),
        stars=[imported for name, imported in bound if name == "*"],
        effects=piece_of(effects),
        loaded=[imported for _, imported in bound],
        dynamic_attributes=any(piece.dynamic_attributes for piece in pieces),
    )


def _definition(name: str, statements: Sequence[ast.stmt]) -> Definition:
    last = statements[-1]
    for statement in statements:
        if isinstance(statement, ast.ClassDef):
            own = [d for d in statement.decorator_list if not _is_record(d)]
            statement.decorator_list = own
    if not isinstance(last, ast.ClassDef) or len(statements) > 1:
        decorators = [d for s in statements for d in getattr(s, "decorator_list", [])]
        return Definition(name, piece_of(statements), decorators=piece_of(decorators))
    functions: dict[str, list[ast.stmt]] = {}
    header: list[ast.stmt] = []
    for statement in without_docstring(last.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.setdefault(statement.name, []).append(statement)
        elif not _is_record_assignment(statement):
            header.append(statement)
    return Definition(
        name,
        class_piece(last, header),
        is_class=True,
        methods={n: method_piece(last, found) for n, found in functions.items()},
        bases=piece_of(last.bases),
        subclass_hook="__init_subclass__" in functions,
        decorators=piece_of(last.decorator_list),
    )


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top level binds; a compound one binds all within it."""
    if _is_definition(statement):
        yield statement.name
        return
    pending: list[ast.AST] = [statement]
    found: dict[str, None] = {}
    while pending:
        node = pending.pop()
        if _is_definition(node):
            found[node.name] = None
            continue
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = None
        pending += ast.iter_child_nodes(node)
    yield from found


def _attach(statement: ast.stmt, names: dict[str, list[ast.stmt]], effects: list[ast.stmt]) -> None:
    """A statement that binds no name belongs to the definition that it changes (``TABLE[1] = f``,
    ``Mine.forward = other``, ``TABLE.update(...)``), or is an effect of the module.
    """
    if isinstance(statement, ast.Assign | ast.Delete):
        roots = {_root(target) for target in statement.targets}
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        roots = {_root(statement.target)}
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        roots = {_root(statement.value.func)}
    else:
        roots = {""}
    if roots <= names.keys():
        for root in roots:
            if not isinstance(names[root][0], ast.FunctionDef) or not isinstance(
                statement, ast.Expr
            ):
                names[root].append(statement)
                continue
            effects.append(statement)  # a call of one of the module's functions
        return
    effects.append(statement)


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_definition(node: ast.AST) -> TypeGuard[_Definition]:
    return isinstance(node, _Definition)


def _is_typing(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.If):
        return False
    test = statement.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING" and not statement.orelse


def _is_main_guard(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Compare)
        and getattr(statement.test.left, "id", "") == "__name__"
    )


def _is_record(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in RECORD_DECORATORS


def _is_record_assignment(statement: ast.stmt) -> bool:
    """``info = AttentionInfo(...)`` in a class body."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return False
    call = statement.value
    return (
        isinstance(call, ast.Call)
        and (getattr(call.func, "id", "") or getattr(call.func, "attr", "")) in _RECORDS
    )
