"""A piece of syntax in a canonical form, with its free names as references.

The form is the same for every Python that the suite supports, which `ast.unparse` and `ast.dump`
are not. It leaves out what no number depends on: comments and layout, docstrings, the messages of
errors and assertions, printing, and annotations where nobody reads them. Names that a definition
binds itself stay as they are; every other name becomes a `Reference`, to be resolved by whoever
knows the module's imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cab.definitions.scopes import (
    Imported,
    Scope,
    every_argument,
    scope_of_arguments,
    scope_of_body,
    scope_of_comprehension,
)


@dataclass(frozen=True)
class Reference:
    """A name that a piece of syntax does not bind itself, with the attributes read from it."""

    name: str
    attributes: tuple[str, ...] = ()
    imported: Imported | None = None
    """Where an import inside a function binds it; None: the module or Python itself does"""


_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


@dataclass
class Piece:
    """Canonical syntax: text between references, and what it mentions."""

    texts: list[str] = field(default_factory=lambda: [""])
    """One more than there are references"""
    references: list[Reference] = field(default_factory=list)
    mentions: set[str] = field(default_factory=set)
    """Names of attributes that it reads"""
    strings: set[str] = field(default_factory=set)
    """Short strings, which could name an attribute or a file"""
    reads_dictionaries: bool = False
    """Whether it reads the attributes of something as a dictionary"""
    dynamic_attributes: bool = False
    """Whether it reads attributes whose names are computed"""

    def write(self, text: str) -> None:
        """Add text."""
        self.texts[-1] += text

    def refer(self, reference: Reference) -> None:
        """Add a reference."""
        self.references.append(reference)
        self.texts.append("")


def piece_of(nodes: Iterable[ast.AST]) -> Piece:
    """The canonical form of statements or expressions that stand at the top level of a module."""
    writer = _Writer()
    for node in nodes:
        writer.emit(node)
        writer.piece.write(";")
    return writer.piece


def class_piece(node: ast.ClassDef, body: Sequence[ast.stmt]) -> Piece:
    """The canonical form of a class with some statements of its body."""
    writer = _Writer()
    for part in (node.decorator_list, node.bases, node.keywords):
        writer.emit(list(part))
    writer.class_body(body)
    return writer.piece


def method_piece(node: ast.ClassDef, methods: Sequence[ast.stmt]) -> Piece:
    """The canonical form of functions that stand in a class body."""
    writer = _Writer()
    writer.class_body(methods, node.body)
    return writer.piece


def without_docstring(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """A body without the string that it begins with."""
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return list(body[1:])
    return list(body)


_SKIPPED = frozenset({"ctx", "kind", "type_comment", "type_ignores", "annotation", "returns"})
_PLAIN_DECORATORS = frozenset(
    {
        "abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "dataclass",
        "lru_cache", "no_grad", "once_differentiable", "overload", "override", "property", "setter",
        "staticmethod", "wraps",
    }
)  # fmt: skip
"""Decorators that read no annotation of a function"""
_PRINTERS = frozenset({"print", "warn", "warning", "info", "debug", "log"})
_MOST_CHARACTERS = 200


class _Writer:
    def __init__(self) -> None:
        self.piece = Piece()
        self._scopes: list[Scope] = []
        self._annotations_matter = False

    def emit(self, node: object) -> None:
        if isinstance(node, list):
            self.piece.write("[")
            for item in node:
                if not _says_nothing(item):
                    self.emit(item)
                    self.piece.write(",")
            self.piece.write("]")
        elif not isinstance(node, ast.AST):
            self.piece.write("-" if node is None else repr(node))
        elif not _says_nothing(node):
            special = getattr(self, f"_{type(node).__name__}", None)
            if special is None:
                self._generic(node)
            else:
                special(node)

    def _generic(self, node: ast.AST, skipped: Iterable[str] = ()) -> None:
        self.piece.write(f"{type(node).__name__}(")
        for name in node._fields:
            value = getattr(node, name, None)
            if name in _SKIPPED or name in skipped or value is None or value == []:
                continue
            if name in ("name", "asname", "rest") and isinstance(value, str):
                self.piece.write(f"{name}={value},")
                continue
            self.piece.write(f"{name}=")
            self.emit(value)
            self.piece.write(",")
        self.piece.write(")")

    # Names

    def _Name(self, node: ast.Name) -> None:
        self._chain(node.id, ())

    def _Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.insert(0, inner.attr)
            inner = inner.value
        self.piece.mentions.update(attributes)
        if isinstance(inner, ast.Name):
            self._chain(inner.id, tuple(attributes))
        else:
            self.emit(inner)
            self.piece.write("".join(f".{name}" for name in attributes))

    def _chain(self, name: str, attributes: tuple[str, ...]) -> None:
        innermost = True
        for scope in reversed(self._scopes):
            if scope.is_class and not innermost:
                continue
            innermost = False
            if name in scope.global_names:
                break
            if name in scope.imports:
                self.piece.refer(Reference(name, attributes, scope.imports[name]))
                return
            if name in scope.bound:
                self.piece.write(".".join((name, *attributes)))
                return
        self.piece.refer(Reference(name, attributes))

    # Scopes

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        matter = any(_called(d) not in _PLAIN_DECORATORS for d in node.decorator_list)
        self.piece.write(f"{type(node).__name__}(")
        self.emit(node.decorator_list)
        if self._scopes:  # a function at the top level may be renamed
            self.piece.write(node.name)
        self._defaults(arguments)
        with_annotations = [a for a in every_argument(arguments) if a.annotation is not None]
        if matter and with_annotations:
            # As text: what it names is read as a word, by a compiler of kernels for example.
            words = [f"{a.arg}:{_words(a.annotation)}" for a in with_annotations]
            self.piece.write(" ".join(words))
        scope = scope_of_body(node.body)
        scope.bound |= scope_of_arguments(arguments).bound
        self._scopes.append(scope)
        self.emit(without_docstring(node.body))
        self._scopes.pop()
        self.piece.write(")")

    _AsyncFunctionDef = _FunctionDef

    def _Lambda(self, node: ast.Lambda) -> None:
        self.piece.write("Lambda(")
        self._defaults(node.args)
        self._scopes.append(scope_of_arguments(node.args))
        self.emit(node.body)
        self._scopes.pop()
        self.piece.write(")")

    def _defaults(self, arguments: ast.arguments) -> None:
        names = [f"{a.arg}" for a in (*arguments.posonlyargs, *arguments.args)]
        keywords = [a.arg for a in arguments.kwonlyargs]
        rest = [f"{a.arg}" for a in (arguments.vararg, arguments.kwarg) if a is not None]
        self.piece.write(f"({len(arguments.posonlyargs)} {names} {keywords} {rest}")
        self.emit(list(arguments.defaults))
        self.emit(list(arguments.kw_defaults))
        self.piece.write(")")

    def _ClassDef(self, node: ast.ClassDef) -> None:
        self.piece.write("ClassDef(")
        for part in (node.decorator_list, node.bases, node.keywords):
            self.emit(list(part))
        if self._scopes:
            self.piece.write(node.name)
        self.class_body(without_docstring(node.body))
        self.piece.write(")")

    def class_body(self, body: Sequence[ast.stmt], whole: Sequence[ast.stmt] = ()) -> None:
        """Statements of a class body; ``whole``: the body that they are part of."""
        self._scopes.append(scope_of_body(whole or body, is_class=True))
        for statement in body:
            if isinstance(statement, ast.AnnAssign):
                # The fields of a data class.
                self.piece.write(f"Field({_words(statement.target)}:")
                self.piece.write(_words(statement.annotation))
                self.emit(statement.value)
                self.piece.write(")")
            else:
                self.emit(statement)
        self._scopes.pop()

    def _ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehended(node, [node.elt])

    _SetComp = _GeneratorExp = _ListComp

    def _DictComp(self, node: ast.DictComp) -> None:
        self._comprehended(node, [node.key, node.value])

    def _comprehended(self, node: _Comprehension, results: list[ast.expr]) -> None:
        self._scopes.append(scope_of_comprehension(node.generators))
        self.piece.write(f"{type(node).__name__}(")
        self.emit(results)
        self.emit(node.generators)
        self.piece.write(")")
        self._scopes.pop()

    # What says less than it writes

    def _AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.piece.write("Assign(targets=[")
            self.emit(node.target)
            self.piece.write(",],value=")
            self.emit(node.value)
            self.piece.write(",)")

    def _Raise(self, node: ast.Raise) -> None:
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        self.piece.write("Raise(")
        self.emit(error)
        self.piece.write(")")

    def _Assert(self, node: ast.Assert) -> None:
        self._generic(node, ["msg"])

    def _Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.piece.write("Import()")  # what is used of it is a reference where it is used

    _ImportFrom = _Import

    def _Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str) and 0 < len(value) <= _MOST_CHARACTERS:
            self.piece.strings.add(value)
        self.piece.write(repr(value))

    def _JoinedStr(self, node: ast.JoinedStr) -> None:
        """Pieces of text that touch are one, whatever the parser makes of them."""
        self.piece.write("JoinedStr(")
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            self.piece.write(repr(text))
            text = ""
            self.emit(part)
        self.piece.write(f"{text!r})")

    def _Call(self, node: ast.Call) -> None:
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        reads = called in ("getattr", "setattr", "hasattr", "delattr")
        if reads or (isinstance(node.func, ast.Attribute) and node.func.attr == "__getattribute__"):
            named = node.args[1] if len(node.args) > 1 else None
            if isinstance(named, ast.Constant):
                self.piece.mentions.add(str(named.value))
            else:
                self.piece.dynamic_attributes = True
        if called == "vars" and node.args:
            self.piece.reads_dictionaries = True
            self.piece.write("vars(")
            self.emit(list(node.args))
            self.piece.write(")")
            return
        self._generic(node)


def _says_nothing(node: object) -> bool:
    """Whether a statement is there for readers alone: a string, or something printed."""
    if isinstance(node, ast.Pass):
        return True
    if isinstance(node, ast.AnnAssign):
        return node.value is None and isinstance(node.target, ast.Name)
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    if isinstance(value, ast.Constant):
        return True
    if not isinstance(value, ast.Call):
        return False
    function = value.func
    if isinstance(function, ast.Name):
        return function.id == "print"
    owner = function.value if isinstance(function, ast.Attribute) else None
    named = owner.id if isinstance(owner, ast.Name) else ""
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _PRINTERS
        and named in ("warnings", "logging", "logger", "log", "_log")
    )


def _called(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _words(node: ast.AST | None) -> str:
    """An annotation or a target as words; names are not followed."""
    writer = _Writer()
    writer.emit(node)
    piece = writer.piece
    names = [".".join((r.name, *r.attributes)) for r in piece.references]
    return "".join(x for pair in zip(piece.texts, [*names, ""], strict=True) for x in pair)
