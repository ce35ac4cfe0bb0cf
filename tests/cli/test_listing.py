"""Listings come from the registries, and at once."""

import subprocess
import sys

import pytest

from cab.info import Grade
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS

HEAVY = ("torch", "pandas", "numpy", "pyarrow", "streamlit", "scipy")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list", "attentions"],
        ["list", "tasks"],
        ["list", "patterns"],
        ["show", "lla", "--no-reference", "--out", "docs"],
        ["run", "--help"],
    ],
)
def test_light_commands_import_nothing_heavy(words):
    code = (
        f"import sys; sys.argv = ['cab', *{words!r}]\n"
        "from cab.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("what", "registry", "package"),
    [("attentions", ATTENTIONS, "attentions."), ("tasks", TASKS, "tasks.")],
)
def test_every_entry_is_listed(cab_in, what, registry, package):
    listed = cab_in("list", what).stdout
    # Other tests register classes of their own in this process.
    entries = registry.entries().items()
    ours = [name for name, entry in entries if entry.target.startswith(package)]
    assert len(ours) >= 20
    assert all(f"\n{name} " in listed for name in ours)


def test_pairs_that_tell_nothing_are_marked_and_explained(cab_in):
    listed = cab_in("list", "tasks", columns=140).stdout
    assert "(NS) CS CC" in listed
    assert "(NS): does not tell attention from none there" in " ".join(listed.split())
    shown = " ".join(cab_in("show", "summarization", "--no-reference", "--out", ".").stdout.split())
    assert "noncausal-self: only where the task is named (--task summarization)" in shown
    assert "a gap of 0.0 spreads" in shown


def test_patterns_are_explained(cab_in):
    listed = cab_in("list", "patterns").stdout
    assert "causal-cross" in listed
    assert "changed or removed" in " ".join(listed.split())


def test_show_tells_formula_paper_grades_options_and_complexity(cab_in):
    shown = cab_in("show", "lla").stdout
    for words in (
        "Cov_i(v,k)",
        "Zuo et al.",
        "2510.01450",
        "faithful",
        "extension",
        "ridge",
        "L^2 D^2",
    ):
        assert words in shown
    assert "no common positions" in " ".join(cab_in("show", "local").stdout.split())
    shown = cab_in("show", "summarization").stdout
    assert "world-factbook" in shown
    assert "nll" in shown


def test_check_passes_a_good_one_and_fails_a_leaking_one(cab_in, tmp_path):
    assert cab_in("check", "linear-elu", "-p", "CS").returncode == 0
    (tmp_path / "leak.py").write_text(
        "from cab import Attention\n\n\n"
        "class Leak(Attention):\n"
        "    def forward(self, q, k, v, context=None):\n"
        "        return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])\n"
    )
    done = cab_in("check", "leak.py:Leak", "-p", "causal-self")
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "changes earlier outputs" in done.stdout


def test_doctor_reports(cab_in):
    told = cab_in("doctor").stdout
    for word in ("torch", "cores", "triton", "registry"):
        assert word in told


def test_version(cab_in):
    assert cab_in("--version").stdout.startswith("cab 0.")


CAB_SUPPORT = {
    "softmax": "NS CS NC CC",
    "local": "NS CS",
    "abc": "NS CS NC CC",
    "nystromformer": "NS",
    "performer": "NS NC CC",
    "lara": "NS",
    "cosformer": "NS NC",
    "prob-sparse": "NS",
    "s4d": "NS CS",
    "long-short": "NS CS",
    "flash": "NS CS",
}
"""The library's own table (CAB, efficient-attention/README.md)."""


def test_the_support_matrix_holds_all_of_cabs(cab_in):
    listed = cab_in("list", "attentions", "--patterns").stdout
    rows = {line.split()[0]: line.split()[1:] for line in listed.splitlines() if line[:1].isalpha()}
    for name, patterns in CAB_SUPPORT.items():
        grades = dict(zip(Pattern, rows[name], strict=False))
        assert all(grades[Pattern.parse(p)] in set(Grade) for p in patterns.split()), name


def test_cabs_mechanisms_have_cabs_settings():
    presets = {info.id: info.presets for info in ATTENTIONS.infos()}
    for name in CAB_SUPPORT.keys() - {"softmax", "flash"}:  # which have none
        assert presets[name]["cab"], name


def test_every_absent_pattern_has_a_reason(cab_in):
    assert "no reason is given" not in cab_in("list", "attentions", "--patterns").stdout
