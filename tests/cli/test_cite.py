"""``cab cite``: what it names, and what it says where there is nothing to name."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources

import pytest

from cab.cli.app import app
from cab.errors import UsageError
from cab.version import SUITE_VERSION
from tests.bibliography.test_bibtex import parsed
from tests.cli.stores import write_store


@pytest.fixture
def cited(capsys):
    def run(*words):
        app(["cite", *map(str, words)], standalone_mode=False)
        text = capsys.readouterr().out
        return parsed(text), text

    return run


def test_the_suite_and_the_paper_that_it_follows_come_first(cited):
    found, _ = cited()
    assert list(found) == ["cab", "zhang2023cab"]
    assert found["cab"]["author"] == "{The cab developers}"
    assert found["cab"]["note"] == f"Version {SUITE_VERSION}"


def test_mechanisms_tasks_and_data_that_are_named_are_cited_once(cited):
    found, text = cited("softmax", "softmax-exact", "summarization", "world-factbook")
    assert list(found) == ["cab", "zhang2023cab", "vaswani2017attention", "fabbri2019multi",
                           "data-world-factbook"]  # fmt: skip
    assert "% softmax, softmax-exact\n@inproceedings{vaswani2017attention," in text
    assert "Central Intelligence Agency" in found["data-world-factbook"]["note"]


def test_every_data_set_can_be_cited(cited):
    names = json.loads((resources.files("tasks.data") / "manifest.json").read_bytes())
    found, text = cited(*names)
    assert {f"data-{name}" for name in names} <= found.keys()
    assert text.isascii()


def test_a_task_without_a_paper_says_so(cited):
    found, text = cited("summarization-docstrings")
    assert "% summarization-docstrings: its record names no paper" in text
    assert "data-docstrings" in found


def test_what_the_results_name_is_cited_with_the_commits(cited, tmp_path):
    write_store(tmp_path / "runs")
    found, text = cited("--used", "--out", tmp_path / "runs", "--no-reference")
    used = {"vaswani2017attention", "zuo2025local", "gu2022parameterization", "fabbri2019multi"}
    assert used <= found.keys()
    assert "choromanski2021rethinking" not in found
    assert found["cab"]["note"].endswith("results of cab 0.1.0, commit abc")
    assert "% made-up: in the results, and not registered here" in text


def test_reference_results_count_as_used_unless_they_are_left_out(cited, tmp_path, reference):
    write_store(reference)
    (tmp_path / "runs").mkdir()
    found, _ = cited("--used", "--out", tmp_path / "runs")
    assert "zuo2025local" in found
    with pytest.raises(UsageError, match="no results"):
        cited("--used", "--out", tmp_path / "runs", "--no-reference")


def test_a_file_of_ones_own_is_cited_by_its_record(cited, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from cab import Attention, AttentionInfo, Grade, Pattern, register_attention\n"
        "@register_attention(AttentionInfo(id='mine', title='', formula='', time='', memory='',\n"
        "    patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL}, paper='Doe et al., On {It}',\n"
        "    year=2020))\n"
        "class Mine(Attention):\n    def forward(self, q, k, v, context=None):\n        return v\n"
    )
    found, _ = cited("mine.py:Mine")
    assert "doe2020it" in found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("lal",), "did you mean local, mla, lla?"),
        (("summarisation",), "did you mean summarization"),
        (("web-bibel",), "did you mean web-bible?"),
        (("lla", "nonsense-of-mine"), "unknown attention, task or data set 'nonsense-of-mine'"),
        (("--used", "--out", "no-such-folder"), "no-such-folder"),
        (("no-such.py:Mine",), "no-such.py"),
    ],
)
def test_what_is_not_there_is_one_line_and_exit_code_2(words, says, forked_cab_in):
    done = forked_cab_in("cite", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_an_empty_folder_without_reference_results_is_told(forked_cab_in, tmp_path):
    (tmp_path / "empty").mkdir()
    done = forked_cab_in("cite", "--used", "--out", "empty", "--no-reference")
    assert done.returncode == 2
    assert "cab cite lla" in done.stderr


def test_citing_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['cab', 'cite', 'lla', 'summarization']\n"
        "from cab.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
