"""Which names a piece of syntax binds itself."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True)
class Imported:
    """What an import statement binds a name to."""

    module: str
    """Dotted; relative to the importing module's package where ``level`` is above 0"""
    name: str = ""
    """Of a definition or submodule in it; empty: the module itself"""
    level: int = 0
    whole_path: bool = False
    """``import a.b.c`` binds ``a``, and says that ``a.b.c`` is loaded"""


@dataclass
class Scope:
    """The names of a function, a class body or a comprehension."""

    bound: set[str] = field(default_factory=set)
    imports: dict[str, Imported] = field(default_factory=dict)
    """Names that imports in it bind"""
    global_names: set[str] = field(default_factory=set)
    is_class: bool = False


def scope_of_body(body: Iterable[ast.stmt], *, is_class: bool = False) -> Scope:
    """The names that a body binds."""
    scope = Scope(is_class=is_class)
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            scope.imports |= dict(imports_of([node]))
            continue
        if isinstance(node, ast.Global):
            scope.global_names |= set(node.names)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            scope.bound.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            scope.bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            scope.bound.add(node.rest)
        if isinstance(node, _SCOPES):
            if not isinstance(node, ast.Lambda):
                scope.bound.add(node.name)
            continue
        if isinstance(node, _COMPREHENSIONS):
            walruses = (w for w in ast.walk(node) if isinstance(w, ast.NamedExpr))
            scope.bound |= {w.target.id for w in walruses}
            continue
        pending += ast.iter_child_nodes(node)
    return scope


def scope_of_arguments(arguments: ast.arguments) -> Scope:
    """The names of a function's parameters."""
    return Scope({argument.arg for argument in every_argument(arguments)})


def scope_of_comprehension(generators: Iterable[ast.comprehension]) -> Scope:
    """The names that a comprehension's loops bind."""
    return Scope(
        {
            inner.id
            for generator in generators
            for inner in ast.walk(generator.target)
            if isinstance(inner, ast.Name)
        }
    )


def every_argument(arguments: ast.arguments) -> list[ast.arg]:
    """Parameters of all kinds."""
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return found + [a for a in (arguments.vararg, arguments.kwarg) if a is not None]


def imports_of(nodes: Iterable[ast.stmt]) -> Iterator[tuple[str, Imported]]:
    """Names that import statements bind; ``*`` for all names of a module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, Imported(alias.name)
                else:
                    yield alias.name.split(".")[0], Imported(alias.name, whole_path=True)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name
                yield name, Imported(node.module or "", alias.name, node.level)
