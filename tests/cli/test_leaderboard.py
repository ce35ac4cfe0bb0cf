"""``cab leaderboard``, ``cab compare`` and ``cab report`` on a store with known standings."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest

from cab.cli.console import console
from cab.store import ResultStore
from tests.cli.pages import parsed
from tests.cli.stores import ABILITY
from tests.scoring.test_short_runs import LOSSES, TURNED, rows_at


def tables(text):
    return {t["title"]: t for t in json.loads(text)}


def test_table_ranks_and_says_what_is_not_known(shown):
    text = shown("leaderboard", "--scale", "small")
    assert text.index("causal-self (small, cpu)") < text.index("overall (small, cpu)")
    assert "(base, cpu)" not in text
    words = " ".join(text.split())
    assert "forecasting is left out: softmax" in words
    assert "s4d has no index: no full result on summarization" in words
    assert "s4d on summarization: 1 x diverged" in words
    assert "= not distinguishable from the entry above" in words


def test_json_has_all_numbers(shown):
    found = tables(shown("leaderboard", "--scale", "small", "--format", "json"))
    rows = found["causal-self (small, cpu)"]["rows"]
    assert {row["entry"] for row in rows} == set(ABILITY)
    assert rows[0]["entry"] == "lla"
    assert rows[0]["rank"] == 1
    for row in rows:
        if row["missing"]:
            assert row["entry"] == "s4d"
            assert row["index"] is None
            assert row["beats_softmax"] is None
            assert (row["tasks"], row["tasks_asked"]) == (1, 2)
        else:
            assert row["rank_low"] <= row["rank"] <= row["rank_high"]
            assert row["index_low"] <= row["index"] <= row["index_high"]
            assert row["index"] == pytest.approx(ABILITY[row["entry"]], abs=0.05)
    assert "forecasting" not in rows[0]
    assert found["overall (small, cpu)"]["rows"][0]["entry"] == "lla"


def test_details_stand_below_the_table_and_fit_a_terminal(shown, monkeypatch):
    monkeypatch.setattr(console, "width", 80)
    words = ("leaderboard", "-p", "CS", "--scale", "small", "--no-reference", "--details")
    text = shown(*words)
    below = text[text.index("what its tasks tell") :]
    assert max(map(len, below.splitlines())) <= 80
    told = " ".join(text.split())
    assert "What this board can tell: 7 ranked entries, 2 tasks, 3 seeds." in told
    assert "without an index and not here: s4d" in told
    assert "What this board" in shown(*words[:-1])
    assert "what its tasks tell" not in shown(*words[:-1])
    found = tables(shown(*words, "-f", "json"))
    assert found["causal-self (small, cpu)"]["summary"].startswith("What this board can tell")
    tasks = found["causal-self, what its tasks tell (small, cpu)"]["rows"]
    assert sum(row["share"] for row in tasks) == pytest.approx(1)
    matrix = found["causal-self, who beats whom (small, cpu)"]["rows"]
    assert [row["rank"] for row in matrix] == list(range(1, 8))
    assert {row["seeds"] for row in matrix} == {"3"}


def test_runs_at_other_lengths_are_told_of_below_the_boards(called, tmp_path):
    made = ResultStore(tmp_path / "lengths")
    made.prepare()
    made.append([*rows_at(1, LOSSES), *rows_at(4, TURNED)])
    words = ("--out", made.root, "--no-reference")
    code, text, errors = called("leaderboard", *words)
    assert code == 0, errors
    said = " ".join(text.split())
    assert "Do short runs tell? (tiny, cpu)" in said
    assert "RANKS TURN OVER at 4x the steps: of 10 pairs of entries" in said
    assert text.count("cosformer") == 1
    found = tables(called("leaderboard", *words, "-f", "json")[1])
    row = found["Do short runs tell? (tiny, cpu)"]["rows"][0]
    assert (row["multiple"], row["turned"], row["decided"], row["entries"]) == (4, 3, 10, 5)
    code, _, errors = called("report", *words, "--to", "page.html")
    assert code == 0, errors
    assert "RANKS TURN OVER" in parsed_text(tmp_path / "page.html")


def parsed_text(path):
    text = path.read_text(encoding="utf-8")
    parsed(text)
    return text


def test_csv_is_one_table(shown):
    text = shown("leaderboard", "-p", "CS", "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["scale"] for row in rows} == {"small", "base"}
    assert {row["pattern"] for row in rows} == {"causal-self"}
    assert len(rows) == 2 * len(ABILITY)


def test_scales_are_correlated_with_n(shown):
    found = tables(shown("leaderboard", "-f", "json"))
    between = found["Rank correlations between tracks: does the small one predict the large one?"]
    rows = {row["one"]: row for row in between["rows"]}
    whole = rows["noncausal-self, small, cpu"]
    assert whole["n"] == len(ABILITY) - 2  # none and softmax-exact are no mechanisms to compare
    assert whole["rho_low"] <= whole["rho"] <= whole["rho_high"]
    assert rows["causal-self, small, cpu"]["n"] == len(ABILITY) - 3


def test_markdown_and_latex_are_whole(shown):
    lines = shown("leaderboard", "-p", "CS", "--scale", "small", "-f", "markdown").splitlines()
    cells = [line.count("|") for line in lines if line.startswith("|")]
    assert len(cells) == 2 + len(ABILITY)
    assert len(set(cells)) == 1
    text = shown("leaderboard", "-p", "CS", "--scale", "small", "-f", "latex")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
    assert (
        "Pattern causal-self, scale small, device cpu. Measured with cab 0.1.0, commit abc." in text
    )
    bodies = re.findall(r"\\midrule(.*?)\\bottomrule", text, re.DOTALL)
    for body in bodies:
        assert body.count(r"\\") == len(ABILITY)
        assert not re.search(r"(?<!\\)[%&#_](?=[a-z0-9 ]*\\\\)", body.replace(" & ", " "))


def test_html_is_well_formed(shown):
    tags = parsed(shown("leaderboard", "-f", "html"))
    assert tags.seen["table"] == 7  # two patterns and both together at two scales, and between


COMMANDS = {
    "leaderboard": ("leaderboard", "-p", "CS", "--scale", "small"),
    "latency": ("leaderboard", "-p", "CS", "--scale", "small", "--metric", "latency"),
    "bradley-terry": ("leaderboard", "-p", "CS", "--metric", "bradley-terry"),
    "compare": ("compare", "lla", "softmax", "-p", "CS", "--scale", "small"),
}


@pytest.mark.parametrize("width", [30, 80, 100, 120])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_what_a_terminal_has_no_room_for_is_named(shown, monkeypatch, words, width):
    """Every heading of the wide table is in the narrow one, or in the note below it."""
    monkeypatch.setattr(console, "width", 400)
    whole = shown(*words)
    monkeypatch.setattr(console, "width", width)
    text = shown(*words)
    headings = {part for line in whole.splitlines() if re.match(r" *(#|task|cost|attention) ", line)
                for part in re.split(r"  +", line.strip())}  # fmt: skip
    assert len(headings) > 3
    flat = " ".join(text.split())
    assert [heading for heading in headings if heading not in flat] == []
    numbers = set(re.findall(r"[+-]?\d+\.\d+", text))
    assert numbers <= set(re.findall(r"[+-]?\d+\.\d+", whole))
    named = re.search(r"no room for: .*?COLUMNS=(\d+) shows all", flat)
    assert "no room" not in whole
    if named:
        monkeypatch.setattr(console, "width", int(named[1]))
        assert flat.count("no room") > " ".join(shown(*words).split()).count("no room")


def test_a_narrow_terminal_loses_columns_but_no_digits(shown, monkeypatch):
    monkeypatch.setattr(console, "width", 30)
    text = shown("leaderboard", "-p", "CS", "--scale", "small")
    line = next(line for line in text.splitlines() if " lla " in line)
    assert re.search(
        r"faithful +2 of 2 +[+-]\d\.\d{3} +[+-]\d\.\d{3} \.\. [+-]\d\.\d{3}$", line.rstrip()
    )
    assert "language-modeling" not in text.splitlines()[1]


def test_choice_of_tasks_and_grades(shown):
    words = ("leaderboard", "-p", "CS", "--scale", "small", "-f", "json")
    one = tables(shown(*words, "--task", "summarization"))["causal-self (small, cpu)"]["rows"]
    assert "language-modeling" not in one[0]
    assert one[0]["index"] == pytest.approx(one[0]["summarization"])
    kept = tables(shown(*words, "--grade", "adapted"))["causal-self (small, cpu)"]["rows"]
    assert {row["entry"] for row in kept} == {"softmax", "softmax-exact", "none"}


def test_choice_of_a_family_keeps_controls(shown):
    words = ("leaderboard", "--scale", "small", "--format", "json", "--family", "windowed")
    rows = tables(shown(*words))["causal-self (small, cpu)"]["rows"]
    assert {row["entry"] for row in rows} == {"softmax", "softmax-exact", "none", "local"}
    assert {row["family"] for row in rows if row["entry"] == "local"} == {"windowed"}
    found = tables(shown(*words, "--metric", "nll"))
    assert any({row["entry"] for row in t["rows"]} > {"local"} for t in found.values())


def test_sorting(shown):
    words = ("leaderboard", "-p", "CS", "--scale", "small", "-f", "json", "--sort")
    rows = tables(shown(*words, "attention"))["causal-self (small, cpu)"]["rows"]
    assert [row["entry"] for row in rows] == sorted(ABILITY)
    rows = tables(shown(*words, "summarization"))["causal-self (small, cpu)"]["rows"]
    values = [row["summarization"] for row in rows if row["summarization"] is not None]
    assert values == sorted(values, reverse=True)
    assert rows[-1]["entry"] == "s4d"


def test_costs_with_fronts_and_crossovers(shown):
    words = ("leaderboard", "-p", "CS", "--scale", "small", "-f", "json", "--metric")
    (sheet,) = json.loads(shown(*words, "latency"))
    rows = {row["entry"]: row for row in sheet["rows"]}
    assert sheet["length"] == 1024
    assert list(rows) == sorted(rows, key=lambda name: rows[name]["cost"])
    # 3e-4 (L / 256) meets 1e-4 (L / 256)^2 at 768.
    assert rows["local"]["pays_from"] == pytest.approx(768, rel=0.05)
    assert rows["local"]["reached"]
    assert "lla: oom at length 1,024" in sheet["notes"]
    (sheet,) = json.loads(shown(*words, "parameters"))
    assert {row["entry"]: row["cost"] for row in sheet["rows"]} == {
        name: len(name) for name in ABILITY
    }


def test_raw_metrics_ratings_and_cabs_index(shown):
    words = ("leaderboard", "-p", "CS", "--scale", "small", "-f", "json", "--metric")
    found = json.loads(shown(*words, "nll"))
    assert [sheet["task"] for sheet in found] == ["language-modeling", "summarization"]
    assert found[0]["rows"][0]["entry"] == "lla"
    (sheet,) = json.loads(shown(*words, "bradley-terry"))
    strengths = [row["strength"] for row in sheet["rows"] if row["strength"] is not None]
    assert strengths == sorted(strengths, reverse=True)
    last = sheet["rows"][-1]
    assert (last["entry"], last["rank"], last["strength"], last["tasks"]) == ("s4d", None, None, 1)
    assert last["strength_low"] < last["strength_high"]
    (sheet,) = json.loads(shown(*words, "compositional"))
    assert "CAB's compositional index" in sheet["title"]
    assert "compares with no other table" in sheet["notes"][0]


def test_published_leaderboard(called):
    _, output, _ = called("leaderboard", "--published", "cab2023", "-p", "NS", "-f", "json")
    board, lengths = json.loads(output)
    assert [row["attention"] for row in board["rows"]][:2] == ["local", "cosFormer"]
    assert board["rows"][0]["average"] == pytest.approx(0.978, abs=2e-3)
    abc = next(row for row in lengths["rows"] if row["attention"] == "ABC")
    assert (round(abc["time_recomputed"]), round(abc["memory_recomputed"])) == (1877, 70)
    _, said, _ = called("leaderboard", "--published", "cab2023+errata", "-p", "CS")
    assert "in place of the printed 29.13" in " ".join(said.split())


def test_compare_gives_differences_costs_and_a_verdict(shown):
    text = shown("compare", "lla", "local", "-p", "CS", "--scale", "small", "-f", "json")
    quality, cost = json.loads(text)
    assert "lla is better than local by a factor of 2.0" in quality["verdict"]
    means = {row["what"]: row for row in quality["rows"]}
    assert means["mean, these tasks"]["difference"] == pytest.approx(0.7, abs=0.05)
    assert means["mean, these tasks"]["verdict"] == "better"
    assert {row["what"] for row in cost["rows"]} == {"parameters"}
    text = " ".join(shown("compare", "softmax", "softmax-exact", "-p", "CS").split())
    assert "not distinguishable" in text
    text = shown("compare", "local", "softmax", "-p", "CS", "--scale", "small", "-f", "json")
    latency = json.loads(text)[1]["rows"][0]
    assert latency["what"] == "latency"
    assert latency["ratio"] == pytest.approx(0.75, rel=0.05)
    assert latency["pays_from"] == pytest.approx(768, rel=0.05)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("leaderboard", "--format", "xml"), "unknown format 'xml'; choose from table, csv"),
        (("leaderboard", "--metric", "latancy"), "did you mean latency"),
        (("leaderboard", "--task", "sumarization"), "did you mean summarization"),
        (("leaderboard", "--sort", "indx"), "did you mean index"),
        (("leaderboard", "--device", "tpu"), "unknown device 'tpu'"),
        (("leaderboard", "--family", "soft"), "unknown family 'soft'"),
        (("leaderboard", "--details", "--metric", "latency"), "--details goes with --metric index"),
        (("leaderboard", "--details", "--published", "cab2023"), "--published takes"),
        (("leaderboard", "--published", "cab2032"), "did you mean cab2023"),
        (("leaderboard", "--published", "cab2023", "--scale", "small"), "--published takes"),
        (("leaderboard", "--published", "cab2023", "--task", "TTT"), "did you mean TTS"),
        (("compare", "lla", "sofmax"), "did you mean softmax"),
        (("compare", "lla", "lla"), "name two entries"),
        (("compare", "lla", "softmax", "--scale", "paper"), "share no pattern"),
        (("compare", "lla"), "Missing argument"),
        (("report", "--scale", "paper"), "no results in"),
        (("report", "--to", "."), "is a folder"),
        (("report", "--to", "/proc/no/such"), "cannot write"),
        (("report", "--figures", __file__), "--figures takes a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(called, store, words, says):
    code, output, errors = called(*words, "--out", store)
    assert code == 2, output
    assert says in errors
    assert len(errors.strip().splitlines()) == 1
    assert not output


def test_an_empty_folder_is_told_what_to_do(called, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    code, output, _ = called("leaderboard", "--out", nothing)
    assert code == 0
    assert "cab run --attn" in output
    assert called("leaderboard", "--out", nothing, "-f", "json")[1] == "[]\n"


def test_ranking_does_not_import_torch(store):
    code = (
        f"import sys; sys.argv = ['cab', 'leaderboard', '--out', {str(store)!r}]\n"
        "from cab.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\nassert 'streamlit' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
