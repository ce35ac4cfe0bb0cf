"""Whatever is given to whatever option: one line on standard error, exit code 2, at once."""

import time

import pytest
import typer.main

from cab.cli import app as cli

NEEDED = {
    "run": ("--attn", "softmax", "--pattern", "CC", "--scale", "tiny", "--dry-run"),
    "bench": ("--attn", "softmax", "--pattern", "CC", "--lengths", "64"),
    "check": ("softmax",),
    "show": ("softmax",),
    "compare": ("softmax", "none"),
    "results carry": ("--dry-run",),
    "data build": ("crossword", "archive.zip"),
}
"""What a command needs beside the option under test, so that it does little if it goes on"""

NO_NUMBER = ("", " ", "many", "nan", "1e999", "-inf", "-1", "１", "9" * 30, "9" * 5000, "0x10")
TOO_LONG = ("", "~nobody-of-that-name/x", "x" * 300, "x/" * 2500)
NO_WORD = ("", " ", "x" * 5000)

SAID_BY = {"INTEGER": NO_NUMBER, "NUMBER": NO_NUMBER, "SECONDS": NO_NUMBER, "PATH": TOO_LONG}


def options():
    """Every option of every command that takes a value, with what it cannot take."""
    pending = [("", typer.main.get_command(cli.app))]
    while pending:
        name, command = pending.pop()
        below = getattr(command, "commands", {})
        pending += [(f"{name} {word}".strip(), one) for word, one in below.items()]
        for option in [] if below else command.params:
            if option.param_type_name != "option" or option.is_flag or option.name == "help":
                continue
            flag = max(option.opts, key=len)
            for word in SAID_BY.get(option.metavar, NO_WORD):
                yield pytest.param(name, flag, word, id=f"{name} {flag} {word[:12]!a}")


def ends(monkeypatch, capsys, *words):
    """Exit code, the lines of standard error, and seconds."""
    monkeypatch.setattr("sys.argv", ["cab", *map(str, words)])
    began = time.monotonic()
    with pytest.raises(SystemExit) as end:
        cli.main()
    seconds = time.monotonic() - began
    return end.value.code, capsys.readouterr().err.strip().splitlines(), seconds


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch, tmp_path):
    """An option that is let through must not start a server or a measurement."""
    monkeypatch.chdir(tmp_path)

    def refuse(*_words, **_options):
        raise AssertionError("the command went on")

    monkeypatch.setattr("subprocess.run", refuse)
    for module in ("run", "bench"):  # where it is called: a module that is imported here keeps it
        monkeypatch.setattr(f"cab.cli.{module}.perform", refuse)


@pytest.mark.parametrize(("command", "flag", "word"), list(options()))
def test_a_value_that_an_option_cannot_take(monkeypatch, capsys, command, flag, word):
    needed = NEEDED.get(command, ())
    code, lines, seconds = ends(monkeypatch, capsys, *command.split(), *needed, flag, word)
    assert code == 2
    assert len(lines) == 1, lines
    assert flag in lines[0]
    assert len(lines[0]) < 300
    assert seconds < 5


@pytest.mark.parametrize("word", ["", "x" * 5000])
@pytest.mark.parametrize("command", ["check", "show", "compare softmax", "data info"])
def test_an_argument_that_is_no_name(monkeypatch, capsys, command, word):
    code, lines, _ = ends(monkeypatch, capsys, *command.split(), word)
    assert code == 2
    assert len(lines) == 1


RUN = ("run", "--attn", "lla", "--dry-run")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*RUN, "--seeds", "1000000000"), "at most 1000"),
        ((*RUN, "--measure", ","), "choose from quality, latency, memory"),
        ((*RUN, "--device", "cpu", "--replicas", "3"), "needs a GPU"),
        (("run", "--attn", "performer", "-o", f"features={10**12}"), "at most 1048576"),
        (("run", "--attn", "local", "-p", "NS", "-o", f"window={10**20}"), "at most 1048576"),
        (("check", "local", "-o", f"window={10**20}"), "at most 1048576"),
        (("check", "cosformer", "-o", f"horizon={10**20}"), f"at most {10**12}"),
        (("run", "--attn", "lla", "-o", "scale=nan"), "must be finite"),
        (("run", "--attn", "~nobody-of-that-name/x.py:X"), "cannot be read"),
        (("run", "--attn", f"{'x' * 300}.py:X"), "cannot be read"),
        (("bench", "--attn", "lla", "-p", "CS", "--lengths", f"1..{10**20}"), "tokens at most"),
        (("bench", "--attn", "lla", "-p", "CS", "--lengths", "１k"), "--lengths takes"),
        (("bench", "--attn", "lla", "-p", "CS", "--lengths", "0"), "--lengths takes"),
        (("dashboard", "--port", "99999"), "at most 65535"),
    ],
)
def test_what_no_machine_could_serve(monkeypatch, capsys, words, says):
    code, lines, _ = ends(monkeypatch, capsys, *words)
    assert code == 2
    assert len(lines) == 1, lines
    assert says in lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ("leaderboard",), ("compare", "softmax", "none"), ("report",), ("show", "lla"),
        ("dashboard",), ("results", "audit"), ("results", "carry"),
    ],
)  # fmt: skip
def test_a_results_folder_that_is_not_there_is_named(monkeypatch, capsys, words):
    code, lines, _ = ends(monkeypatch, capsys, *words, "--out", "elsewhere/runs")
    assert code == 2
    assert len(lines) == 1, lines
    assert "elsewhere/runs" in lines[0]


def test_the_default_folder_may_be_yet_to_come(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cab", "leaderboard"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert "measure some" in capsys.readouterr().out


def test_a_path_in_the_home_folder_is_expanded(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, lines, _ = ends(monkeypatch, capsys, "leaderboard", "--out", "~/x")
    assert code == 2
    assert str(tmp_path / "home" / "x") in lines[0]
