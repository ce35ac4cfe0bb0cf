"""Imports go one way: `cab` <- attentions, tasks <- runners <- commands, dashboard; in no circle.

What `cab.bench` is made of is a front door as the commands are.

Read from source, so that imports inside functions and those for type checkers count too.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cab", "attentions", "tasks", "runners", "dashboard")

MAY_IMPORT = {
    "cab": set(),
    "attentions": {"cab"},
    "tasks": {"cab"},
    "runners": {"cab"},
    "cab.cli": {"cab", "attentions", "tasks", "runners"},
    "dashboard": {"cab"},
}
"""By layer, besides itself; whatever else one needs comes through the registries"""

ALSO = {
    # It holds the baselines that it times against being replaced by the candidate.
    "runners.efficiency.runner": {"attentions.softmax", "attentions.softmax_exact"},
}


def name_of(path, root=ROOT):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(root):
    return {name_of(f, root): f for p in PACKAGES for f in sorted((root / p).rglob("*.py"))}


MODULES = modules_of(ROOT)


def layer(module):
    if module == "cab.__main__" or module.split(".")[:2] in (["cab", "cli"], ["cab", "benching"]):
        return "cab.cli"
    return module.split(".")[0]


def imports(path, known):
    """Modules of the suite that a file imports, with the line."""
    pending = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
            yield from ((name, node.lineno) for name in found if name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} is a relative import"
            if node.module.split(".")[0] in PACKAGES:
                for alias in node.names:
                    below = f"{node.module}.{alias.name}"
                    yield (below if below in known else node.module), node.lineno
        else:
            pending += ast.iter_child_nodes(node)


def circles(graph):
    """Sets of modules that import each other, however far around (Tarjan's algorithm)."""
    order, low, path, found = {}, {}, [], []

    def visit(module):
        order[module] = low[module] = len(order)
        path.append(module)
        for other in graph.get(module, ()):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in path:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = path.index(module)
            if len(path) - at > 1:
                found.append(sorted(path[at:]))
            del path[at:]

    for module in graph:
        if module not in order:
            visit(module)
    return found


def forbidden(modules):
    """By layer, imports that go the wrong way."""
    found = defaultdict(list)
    for module, path in modules.items():
        own = layer(module)
        for other, line in imports(path, modules):
            allowed = {own, *MAY_IMPORT[own]}
            if layer(other) not in allowed and other not in ALSO.get(module, ()):
                found[own].append(f"{module} line {line} imports {other}")
    return found


@pytest.mark.parametrize("own", MAY_IMPORT)
def test_imports_go_one_way(own):
    assert not forbidden(MODULES)[own]


def test_no_modules_import_each_other():
    graph = {
        module: {other for other, _ in imports(path, MODULES) if other != module}
        for module, path in MODULES.items()
    }
    assert not circles(graph)


def test_what_is_forbidden_is_seen(tmp_path):
    files = {
        "cab/core.py": "def late():\n    from runners.work import f\n",
        "cab/cli/run.py": "import runners.work\n",
        "runners/work.py": "from cab import core\n",
        "tasks/one.py": "import torch\nimport attentions.mine\n",
        "attentions/mine.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    modules = modules_of(tmp_path)
    assert dict(forbidden(modules)) == {
        "cab": ["cab.core line 2 imports runners.work"],
        "tasks": ["tasks.one line 2 imports attentions.mine"],
    }
    graph = {m: {other for other, _ in imports(p, modules)} for m, p in modules.items()}
    assert circles(graph) == [["cab.core", "runners.work"]]
