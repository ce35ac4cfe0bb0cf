"""Tables for a paper: what they say, that nothing in them acts, and that LaTeX takes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cab.cli import formats
from cab.scoring.origin import Origin, commits_words
from cab.sheets.latex import to_latex
from cab.sheets.latex_cells import cells
from cab.sheets.naming import distinct, slug
from cab.sheets.sheet import Column, Line, Sheet
from cab.tex import escaped, prose

TRACK = {"pattern": "causal-self", "scale": "small", "device": "cpu"}
NAME = Column("attention")
HOSTILE = (
    r"\input{/etc/passwd}", "50 % & more_1 #2 $x^2$ {a} ~b", "[2cm] row", "* star", "a\\\\b",
    "\x1b[2J\u202e", "中文 Nyström ş ñ Ž λ → ✓ ﬀ", "``quotes'' \"x\" <a|b> ,,--", "line\nbreak",
    "\\end{tabular}", "%", "",
)  # fmt: skip


def one_column(column: Column, *values: tuple[str, float | None]) -> Sheet:
    lines = tuple(
        Line((f"entry {n}", words), {"number": value}) for n, (words, value) in enumerate(values)
    )
    return Sheet("title", (NAME, column), lines)


def rows(text: str) -> list[list[str]]:
    bodies = re.findall(r"\\midrule\n(.*?)\n\\bottomrule", text, re.DOTALL)
    lines = [line for body in bodies for line in body.splitlines()]
    return [line.removesuffix(r" \\").split(" & ") for line in lines]


def bold(sheet: Sheet) -> list[bool]:
    return [r"\mathbf" in row[1] for row in rows(to_latex([sheet]))]


@pytest.mark.parametrize(
    ("more", "expected"), [(True, [False, True]), (False, [True, False]), (None, [False, False])]
)
def test_the_best_number_is_bold_where_the_direction_is_known(more, expected) -> None:
    column = Column("x", right=True, more=more, number="number")
    assert bold(one_column(column, ("-0.200", -0.2), ("+0.100", 0.1))) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((("+0.100", 0.1001), ("+0.100", 0.1), ("-1", -1.0)), [True, True, False]),
        ((("+0.100", 0.1001), ("+0.100", 0.1), ("-", None)), [False, False, False]),
        ((("0.61 ± 0.04", 0.61), ("0.61 ± 0.03", 0.612), ("0.5 ± 0.1", 0.5)), [True, True, False]),
        ((("50 % (50-50)", 0.5), ("23 % (7-57)", 0.23)), [True, False]),
        ((("+0.000", 0.0), ("+0.000", 0.0)), [False, False]),
        ((("+0.000", 0.0),), [False]),
        ((("-", None), ("-", None)), [False, False]),
    ],
)
def test_what_reads_like_the_best_is_bold_too_and_nothing_without_another(values, expected) -> None:
    column = Column("x", right=True, more=True, number="number")
    assert bold(one_column(column, *values)) == expected


def test_bold_is_explained_where_there_is_some() -> None:
    column = Column("x", right=True, more=True, number="number")
    assert "bold:" in to_latex([one_column(column, ("1", 1.0), ("2", 2.0))])
    assert "bold:" not in to_latex([one_column(column, ("1", 1.0), ("1", 1.0))])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["-0.25", "+1.5"], ["$-0.25$", r"$+1.5\phantom{0}$"]),
        (["3", "2.5"], [r"$3\phantom{.0}$", "$2.5$"]),
        (["1-3", "-"], ["$1$--$3$", "--"]),
        (["=2", "~3", "1"], ["=$2$", r"$\sim$$3$", "$1$"]),
        (["-0.1 .. +0.2"], ["{[}$-0.1$, $+0.2${]}"]),
        (["1.25x"], [r"$1.25$$\times$"]),
        (["8,192"], ["$8{,}192$"]),
        (["5 % (4-20)", "23 % (7-9)"], [r"$5$ \% ($4$--$20$)", r"$23$ \% ($7$--$\phantom{0}9$)"]),
        (["0.7 ± 0.1", "0.25 ± 10.25"],
         [r"$0.7\phantom{0}$ $\pm$ $\phantom{0}0.1\phantom{0}$", r"$0.25$ $\pm$ $10.25$"]),
        (["1 (2)", "1 (-20)"], [r"$1$ $\phantom{0-}$($2$)", "$1$ ($-20$)"]),
        (["not reached"], ["not reached"]),
        ([""], [""]),
    ],
)  # fmt: skip
def test_numbers_have_signs_and_their_digits_stand_below_each_other(column, expected) -> None:
    assert cells(column, [False] * len(column)) == expected


def test_bold_cells_are_bold_in_all_their_parts() -> None:
    assert cells(["50 % (7-9)"], [True]) == [
        r"$\mathbf{50}$\textbf{ \% (}$\mathbf{7}$--$\mathbf{9}$\textbf{)}"
    ]


def test_prose_has_minus_signs_and_keeps_its_hyphens() -> None:
    text = prose("from -0.5 to 2026-11-25, 1-3, causal-self (-2), --no-reference")
    assert text == "from $-$0.5 to 2026-11-25, 1-3, causal-self ($-$2), -{}-no-reference"


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_outside_is_a_command(text) -> None:
    left = escaped(text)
    for harmless in (r"\\[a-zA-Z]+\{\}", r"\\[&%$#_{}]", r"\\[a-z'`^~=.\"]\{\\?\w\}", r"\{[]*[]\}",
                     r"\\texttt\{U\+\w+\}", r"\$\\?\^?\w+\$", r"\{\}"):  # fmt: skip
        left = re.sub(harmless, "", left)
    assert left.isascii()
    assert not set(left) & set("\\&%$#_{}~^[]*\n\x1b")


def test_caption_label_and_notes_stand_where_a_paper_has_them() -> None:
    origin = Origin(("0.1.0",), ("aaaa", "bbbb"))
    column = Column("x", right=True, help="what x is")
    lines = (Line(("one", "1"), {}), Line(("two", "2"), {}))
    sheet = Sheet(
        "causal-self (small, cpu)", (NAME, column), lines, dict(TRACK), ("a note",), lambda: origin
    )
    text = to_latex([sheet, sheet])
    assert (
        r"\caption{Attention mechanisms on causal-self. Pattern causal-self, scale small, device "
        "cpu. Measured with cab 0.1.0, commits aaaa, bbbb.}" in text
    )
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert labels == ["tab:cab-causal-self-small-cpu", "tab:cab-causal-self-small-cpu-2"]
    floats = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert len(floats) == 2
    assert all(f.index(r"\caption") < f.index(r"\label") < f.index(r"\toprule") for f in floats)
    outside = re.sub(r"\\begin\{table\}.*?\\end\{table\}", "", text, flags=re.DOTALL)
    for words in ("a note.", "x: what x is.", *(rf"\ref{{{label}}}" for label in labels)):
        assert words in outside
        assert not any(words in f for f in floats)


def test_a_column_of_one_word_becomes_a_note_if_a_terminal_may_lose_it() -> None:
    lines = tuple(Line((name, "reference", "faithful"), {}) for name in ("one", "two"))
    text = to_latex([Sheet("t", (NAME, Column("label", keep=1), Column("grade")), lines)])
    assert "label: reference throughout." in text
    assert [len(row) for row in rows(text)] == [2, 2]


def test_a_wide_table_is_broken_and_every_part_names_the_lines() -> None:
    scores = tuple(Column(f"a-task-of-number-{n}", right=True, keep=4) for n in range(12))
    lines = tuple(Line((name, *["+0.123"] * 12), {}) for name in ("one", "two"))
    text = to_latex([Sheet("t", (NAME, *scores), lines)])
    assert text.count(r"\toprule") > 1
    assert text.count(r"\begin{table}") == 1
    body = rows(text)
    assert {row[0] for row in body} == {"one", "two"}
    assert sum(len(row) - 1 for row in body) == 2 * 12


def test_commits_are_counted() -> None:
    assert commits_words(["a", "a"]) == "commit a"
    assert commits_words("abc") == "commits a, b, c"
    assert commits_words("abcd") == "commits a, b, c and 1 other"
    assert commits_words("abcde") == "commits a, b, c and 2 others"


def test_names_are_plain_and_different() -> None:
    assert (
        slug("Latency: causal-self", "Nyström/ÅÄ", "../x ↓") == "latency-causal-self-nystrom-aa-x"
    )
    assert slug("↓") == "unnamed"
    assert len(slug("a" * 500)) < 255
    assert distinct(["a", "b", "a", "a-2", "a"]) == ["a", "b", "a-2", "a-2-2", "a-3"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on the PATH")
def test_latex_takes_what_is_in_files(tmp_path: Path) -> None:
    column = Column("x ↓ %", right=True, more=True, number="number", help="what_x & is")
    lines = [Line((words, words), {"number": float(n)}) for n, words in enumerate(HOSTILE)]
    lines += [Line((w, f"-{n}.5 ± 0.1"), {"number": -n}) for n, w in enumerate(HOSTILE)]
    about = {**TRACK, "pattern": HOSTILE[0], "verdict": HOSTILE[1]}
    sheet = Sheet(HOSTILE[1], (Column(HOSTILE[6]), column), tuple(lines), about, HOSTILE[:-1])
    compiles(to_latex([sheet, sheet]), tmp_path)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on the PATH")
@pytest.mark.parametrize(
    "words",
    [(), ("--metric", "latency"), ("--metric", "nll"), ("--metric", "bradley-terry"),
     ("--published", "cab2023")],
    ids=" ".join,
)  # fmt: skip
def test_leaderboards_compile_and_fit_on_a_page(words, tmp_path, capsys) -> None:
    from cab.cli.app import app

    app(["leaderboard", *words, "-f", "latex", "--out", str(tmp_path)], standalone_mode=False)
    text = capsys.readouterr().out
    assert r"\begin{tabular}" in text
    log = compiles(text, tmp_path)
    assert "Overfull" not in log


def compiles(text: str, folder: Path) -> str:
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{text}\\end{{document}}\n"
    )
    (folder / "paper.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    for _ in range(2):  # the second time references are known
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
    assert "undefined" not in done.stdout
    assert "multiply defined" not in done.stdout
    return done.stdout


def test_latex_is_a_format_of_every_table() -> None:
    assert "latex" in formats.FORMATS
