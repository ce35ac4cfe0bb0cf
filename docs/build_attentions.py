"""Write docs/attentions/: a card and a picture for every attention of the registry, and an index.

python docs/build_attentions.py           # write
python docs/build_attentions.py --check   # exit code 1 where a file is stale

Everything comes from the info records, the docstrings, the tests' names, the mechanisms' code and
the reference results.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys

import torch
from attention_maps import GRIDS, LENGTHS, SETTINGS, TOKENS, Map, attention_map
from attention_pictures import picture
from attention_results import NOTHING, sections
from attention_sources import (
    ROOT,
    class_docstring,
    module_docstring,
    reference_docstring,
    source_path,
    tests_of,
)

from cab import Attention
from cab.info import AttentionInfo, Family, Grade, Option
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.scoring.growth import claimed_exponent

TARGET = ROOT / "docs" / "attentions"
NOTE = "<!-- Written by docs/build_attentions.py from the registry and the code; do not edit. -->"

HEAD = f"""# Attentions

{NOTE}

A card for each of the {{count}} mechanisms: its formula, what each pattern's form is worth and why,
what it costs, its options, what it is tested against, and a picture of what its outputs read.

* **F** faithful: {{faithful}}
* **E** extension: {{extension}}
* **A** adapted: {{adapted}}
* a dash: there is no honest form, and the card says why

Costs are leading terms that the entry claims; D is the width of a head, and other names are on the
cards. [papers.md](../papers.md) says which paper is where.
"""

GRADES = {
    Grade.FAITHFUL: "as published",
    Grade.EXTENSION: "the published formula, unchanged, on a pattern that its authors did not "
    "report",
    Grade.ADAPTED: "the mechanism had to change",
}
LETTERS = {Grade.FAITHFUL: "F", Grade.EXTENSION: "E", Grade.ADAPTED: "A"}

WEIGHTS = (
    "Rows are queries, columns are keys. A cell is the weight of a value in an output: blue above "
    "zero, orange below, empty where it has none; its shade is the root of its share in the "
    "panel's largest."
)
SIZES = (
    "Rows are queries, columns are keys. Outputs are not one weighted sum of the values for all "
    "channels, so a cell is the size of the derivative of an output by a value, the root mean "
    "square over channels: empty where there is none. Its shade is the root of its share in the "
    "panel's largest."
)
SOME = (
    "In the panels {which} outputs are not one weighted sum of the values for all channels: there "
    "a cell is the size of the derivative of an output by a value, the root mean square over "
    "channels."
)


def main() -> int:
    """Write the folder, or compare it with what is there."""
    torch.set_num_threads(1)
    files = pages()
    there = {path.name: path for path in TARGET.glob("*") if path.suffix in (".md", ".svg")}
    stale = sorted(
        name
        for name in files.keys() | there.keys()
        if name not in files
        or name not in there
        or there[name].read_text(encoding="utf-8") != files[name]
    )
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/attentions/{name} is stale: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    TARGET.mkdir(exist_ok=True)
    for name in stale:
        if name in files:
            (TARGET / name).write_text(files[name], encoding="utf-8")
        else:
            there[name].unlink()
    return 0


def pages() -> dict[str, str]:
    """Text of every file of the folder, by name."""
    classes = {
        entry.info.id: ATTENTIONS.load(entry)
        for entry in ATTENTIONS.entries().values()
        if entry.target.startswith("attentions.")
    }
    files = {"README.md": index([cls.info for cls in classes.values()])}
    results = sections()
    for name, cls in classes.items():
        maps = [attention_map(cls, p) for p in Pattern if p in cls.info.patterns]
        files[f"{name}.svg"] = picture(f"What the outputs of {cls.info.title} read", maps)
        files[f"{name}.md"] = card(cls, maps, list(classes), results.get(name, ""))
    return files


def index(infos: list[AttentionInfo]) -> str:
    """All entries, by family."""
    words = {grade.value: said for grade, said in GRADES.items()}
    parts = [HEAD.format(count=len(infos), **words)]
    marks = "".join(f" {pattern.abbreviation} |" for pattern in Pattern)
    for family, meaning in _families().items():
        of_family = sorted((i for i in infos if i.family is family), key=lambda i: i.id)
        if not of_family:
            continue
        lines = [f"## {family.value}\n", f"{meaning}\n", f"| id | |{marks} time | memory |"]
        lines.append("|---|---|" + "---|" * len(Pattern) + "---|---|")
        for info in of_family:
            grades = " | ".join(_letter(info, pattern) for pattern in Pattern)
            lines.append(
                f"| [{info.id}]({info.id}.md) | {info.title} | {grades} | `{info.time}` | "
                f"`{info.memory}` |"
            )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _letter(info: AttentionInfo, pattern: Pattern) -> str:
    grade = info.grade(pattern)
    return LETTERS[grade] if grade else "-"


def _families() -> dict[Family, str]:
    """What each family is, from the strings below its members."""
    tree = ast.parse((ROOT / "cab" / "info.py").read_text(encoding="utf-8"))
    (body,) = (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Family")
    found: dict[Family, str] = {}
    for statement, words in itertools.pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(words, ast.Expr):
            assert isinstance(statement.value, ast.Constant)
            assert isinstance(words.value, ast.Constant)
            found[Family(statement.value.value)] = " ".join(str(words.value.value).split())
    return found


def card(cls: type[Attention], maps: list[Map], names: list[str], results: str = "") -> str:
    """The card of one entry."""
    info = cls.info
    summary, *more = class_docstring(cls).split("\n\n")
    definition = [module_docstring(cls), *more]
    path = source_path(cls)
    parts = [
        f"# {info.title}\n\n{NOTE}",
        f"`{info.id}` · family {info.family.value} · {info.kind.value} · [{path}](../../{path})",
        " ".join(summary.split()),
        _indented(info.formula),
        _paper(info),
        "## Patterns",
        _patterns(info),
        "## What its outputs read",
        _picture(info, maps),
        "## Definition",
        "\n\n".join(_markdown(text) for text in definition),
        "## Results",
        results or NOTHING.format(name=info.id),
        "## Cost",
        _cost(cls),
        "## Options",
        _options(info),
        "## What it is held to",
        _oracle(cls, names),
        "[All attentions](README.md)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _indented(text: str) -> str:
    return f"    {text}"


def _paper(info: AttentionInfo) -> str:
    if not info.paper:
        return "No paper: it is this suite's own."
    year = f" ({info.year})" if info.year else ""
    arxiv = re.search(r"arxiv\.org/abs/(\S+)", info.url)
    link = f"arXiv {arxiv[1]}" if arxiv else info.url
    return f"{info.paper}{year}" + (f", [{link}]({info.url})" if info.url else "") + "."


def _patterns(info: AttentionInfo) -> str:
    lines = ["| pattern | form | why |", "|---|---|---|"]
    for pattern in Pattern:
        grade = info.grade(pattern)
        if grade is None:
            why = info.absent.get(pattern, "not said")
        elif grade is Grade.ADAPTED:
            why = f"{GRADES[grade]}; see [the definition](#definition)"
        else:
            why = GRADES[grade]
        lines.append(f"| {pattern.value} | {grade or 'absent'} | {_cell(why)} |")
    return "\n".join(lines)


def _picture(info: AttentionInfo, maps: list[Map]) -> str:
    settings = [f"`{name}={value}`" for name, value in SETTINGS.get(info.id, {}).items()]
    length = LENGTHS.get(info.id, TOKENS)
    said = f"{length} tokens" + (f" on a grid of {_grid(info)}" if info.id in GRIDS else "")
    at = f"First head, {said}, {', '.join(settings) or 'default options'}. "
    sizes = [one.pattern.value for one in maps if not one.weights]
    caption = SIZES if len(sizes) == len(maps) else WEIGHTS
    if 0 < len(sizes) < len(maps):
        caption += " " + SOME.format(which=" and ".join(sizes))
    width = 18 + 154 * len(maps)
    image = f'<img src="{info.id}.svg" width="{width}" alt="What each output reads, by pattern">'
    return f"{image}\n\n{at}{caption}"


def _grid(info: AttentionInfo) -> str:
    return " x ".join(str(side) for side in GRIDS[info.id])


def _cost(cls: type[Attention]) -> str:
    info = cls.info
    lines = ["| | claimed leading term | power of the length |", "|---|---|---|"]
    for name, term in (("time", info.time), ("memory", info.memory)):
        powers = [claimed_exponent(term, causal) for causal in (False, True)]
        words = ["-" if power is None else f"{power:g}" for power in powers]
        said = words[0] if words[0] == words[1] else f"{words[0]}; causal {words[1]}"
        lines.append(f"| {name} | `{term}` | {said} |")
    decodes = "a step" if cls.decodes() else "no step"
    lines.append(
        f"\nMemory is what is needed beside inputs and outputs. `cab bench {info.id}` measures "
        f"both and says whether the powers hold. There is {decodes} for decoding token by token."
    )
    return "\n".join(lines)


def _options(info: AttentionInfo) -> str:
    if not info.options:
        return "None."
    lines = ["| option | default | takes | |", "|---|---|---|---|"]
    lines += [
        f"| `{o.name}` | `{o.default}` | {_takes(o)} | {_cell(o.help)} |" for o in info.options
    ]
    presets = [
        f"* preset `{name}`: " + ", ".join(f"`{k}={v}`" for k, v in values.items())
        for name, values in info.presets.items()
    ]
    return "\n".join([*lines, *(["", *presets] if presets else [])])


def _takes(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    kind = {bool: "true or false", int: "whole numbers", float: "numbers", str: "words"}
    said = kind[type(option.default)]
    if option.positive:
        return f"{said} above 0"
    bounds = [] if option.least is None else [f"from {option.least:g}"]
    if option.most < 1 << 20:
        bounds.append(f"to {option.most:g}")
    return " ".join([said, *bounds])


def _oracle(cls: type[Attention], names: list[str]) -> str:
    info = cls.info
    lines = [
        f"`reference`, in float64: {reference_docstring(cls)} `cab check {info.id}` holds outputs "
        "and gradients to it on every claimed pattern, with the rest of the contract: masks, "
        "causality, precision, decoding, determinism.",
    ]
    for held in tests_of(info.id, cls, names):
        lines.append(f"\n[{held.path}](../../{held.path}):\n")
        lines += [f"* {test}" for test in held.tests]
    return "\n".join(lines)


def _markdown(docstring: str) -> str:
    """As it stands, with what Markdown would take for tags in words made plain."""
    lines = []
    for line in docstring.splitlines():
        code = line.startswith("    ")
        lines.append(line if code else re.sub(r"<(?=[A-Za-z/!])", r"\\<", line))
    return "\n".join(lines)


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
