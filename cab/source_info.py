"""Read an entry's info record out of its source, without importing the module.

Importing a mechanism imports torch, which takes seconds; listing a hundred mechanisms must feel
instant. A registration is one decorator in front of a class, so its text is enough::

    @register_attention(AttentionInfo(id="mine", ...))
    class Mine(Attention): ...

Only the lines of that decorator are parsed, and evaluated with the vocabulary of ``cab.info`` and
nothing else in scope. A record that needs more than that (a constant of its module, say) is
reported as None, and the caller falls back on the import.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

from cab import info as vocabulary
from cab.patterns import Pattern

_SCOPE: dict[str, Any] = {
    "__builtins__": {"tuple": tuple, "dict": dict, "True": True, "False": False, "None": None},
    "Pattern": Pattern,
    **{
        name: getattr(vocabulary, name)
        for name in (
            "AttentionInfo",
            "Grade",
            "Kind",
            "Metric",
            "Option",
            "Reference",
            "Scale",
            "TaskInfo",
        )
    },
}


def module_path(module: str) -> Path | None:
    """Source file of a dotted module, found without importing it or its parent packages."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for root in spec.submodule_search_locations or ():
        stem = Path(root).joinpath(*rest)
        for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def read_info(path: Path, class_name: str, decorator: str) -> Any | None:
    """The info record that ``@decorator(...)`` gives to ``class_name`` in a source file.

    Returns None where there is no such decorator or its argument is not self-contained.
    """
    block = _decorator_block(path.read_text(encoding="utf-8"), class_name)
    if block is None:
        return None
    try:
        statement = ast.parse(block + f"\nclass {class_name}: ...").body[0]
    except SyntaxError:
        return None
    assert isinstance(statement, ast.ClassDef)
    for call in statement.decorator_list:
        name = call.func if isinstance(call, ast.Call) else None
        if isinstance(name, ast.Attribute):
            called = name.attr
        elif isinstance(name, ast.Name):
            called = name.id
        else:
            continue
        if called == decorator and isinstance(call, ast.Call) and call.args:
            record = ast.Expression(call.args[0])
            try:
                return eval(compile(record, str(path), "eval"), dict(_SCOPE))
            except Exception:  # anything the vocabulary cannot express is left to the import
                return None
    return None


def _decorator_block(source: str, class_name: str) -> str | None:
    """The decorator lines directly in front of a top-level class."""
    lines = source.splitlines()
    header = (f"class {class_name}(", f"class {class_name}:")
    end = next((i for i, line in enumerate(lines) if line.startswith(header)), None)
    if end is None:
        return None
    start = end
    while start > 0 and lines[start - 1][:1] in tuple("@ )]}"):
        start -= 1
    return "\n".join(lines[start:end]) if lines[start].startswith("@") else None
