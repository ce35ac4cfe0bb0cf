"""``cab report`` on a store with known standings: one whole page, and its figures as files."""

from tests.cli.pages import parsed
from tests.cli.stores import ABILITY


def test_report_is_one_whole_page(called, store, tmp_path):
    code, _, errors = called("report", "--out", store, "--to", "made/page.html")
    assert code == 0, errors
    text = (tmp_path / "made" / "page.html").read_text(encoding="utf-8")
    tags = parsed(text)
    assert tags.seen["svg"] >= 6
    # Nothing is loaded from elsewhere.
    assert all(link.startswith("#") for link in tags.links)
    assert "<script" not in text
    for words in ("Rank correlations between patterns", "does the small one predict", "Method",
                  "Environment", "A CPU", "forecasting is left out", "What this board can tell",
                  "what its tasks tell", "the smallest difference to be seen",
                  "All pairs"):  # fmt: skip
        assert words in text
    for name in ABILITY:
        assert name in text


def test_figures_of_the_report_are_files_with_their_track_and_commit(called, store, tmp_path):
    words = ("report", "--out", store, "--no-reference", "--to", "page.html", "--figures", "drawn")
    code, output, errors = called(*words)
    assert code == 0, errors
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert {"index-causal-self-small-cpu.svg", "index-causal-self-small-cpu.pdf",
            "pairs-causal-self-small-cpu.svg",
            "latency-by-length-causal-self-small-cpu.pdf"} <= names  # fmt: skip
    assert {name.partition(".")[2] for name in names} == {"svg", "pdf"}
    assert f"{len(names) // 2} figures" in output
    svg = (tmp_path / "drawn" / "index-causal-self-small-cpu.svg").read_text(encoding="utf-8")
    assert "causal-self, small, cpu; cab 0.1.0, commit abc" in svg
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<figure id="index-causal-self-small-cpu">' in page
    assert page.count("<figure ") == len(names) // 2
