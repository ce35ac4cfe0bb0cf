"""Pictures as files: named, captioned, and readable by what reads such files."""

import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib

import altair as alt
import pandas as pd
import pytest

from cab.errors import StoreError
from cab.report.album import Album
from cab.report.figure import Figure, Words
from cab.report.pdf import with_info
from cab.report.svg import Drawing
from cab.scoring.origin import Origin, of_all, origin_of
from cab.track import Track
from dashboard.export import captioned, figure_of, words_of

SVG = "{http://www.w3.org/2000/svg}"
DC = "{http://purl.org/dc/elements/1.1/}"
HOSTILE = Words(
    "name", "Títle <b> & \"q\" (1) \\ ↓ 中", "A long caption, " * 12 + "with ) and ] and -->",
    "causal-self, small, \x1b[2J cpu", "cab 0.1.0, commit <abc>",
)  # fmt: skip


def drawing() -> str:
    made = Drawing(300, 100, "title of the drawing")
    made.line(0, 0, 300, 100)
    return made.svg()


def figure(words=HOSTILE) -> Figure:
    return Figure.of(drawing(), words)


def test_an_svg_says_what_it_is_to_readers_and_to_programs():
    root = ElementTree.fromstring(figure().svg)
    assert [node.text for node in root.findall(f"{SVG}title")] == [HOSTILE.title]
    described = root.find(f"{SVG}desc").text
    assert "commit <abc>" in described
    assert "with ) and ] and -->" in described
    assert [n.text for n in root.iter(f"{DC}title")] == [HOSTILE.title]
    seen = [node.text for node in root.iter(f"{SVG}text")]
    assert any("commit <abc>" in line for line in seen)
    assert any("causal-self, small" in line for line in seen)
    assert " ".join(seen).startswith("A long caption,")


def test_the_words_stand_below_the_drawing_and_within_its_width():
    root = ElementTree.fromstring(figure().svg)
    width, height = (float(n) for n in root.get("viewBox").split()[2:])
    lines = list(root.iter(f"{SVG}text"))
    assert width == 300
    assert all(100 < float(line.get("y")) <= height for line in lines)
    assert all(len(line.text) * 5 <= width for line in lines)
    assert len({line.get("y") for line in lines}) == len(lines)


def test_a_pdf_has_title_and_subject():
    document = figure().as_bytes("pdf")
    assert document.startswith(b"%PDF")
    start = int(re.findall(rb"startxref\s+(\d+)", document)[-1])
    trailer = document[start:]
    number = int(re.search(rb"/Info (\d+) 0 R", trailer)[1])
    at = int(re.match(rb"xref\n\d+ 1\n(\d{10}) 00000 n\r\n", trailer)[1])
    entry = document[at:]
    assert entry.startswith(f"{number} 0 obj".encode())
    previous = int(re.search(rb"/Prev (\d+)", trailer)[1])
    assert document[previous:].startswith(b"xref")
    fields = dict(re.findall(rb"/(\w+) <([0-9A-F]+)>", entry[: entry.index(b"endobj")]))
    texts = {k.decode(): bytes.fromhex(v.decode()).decode("utf-16") for k, v in fields.items()}
    assert texts["Title"] == HOSTILE.title
    assert texts["Subject"] == HOSTILE.whole


@pytest.mark.parametrize("document", [b"", b"no pdf", b"%PDF-1.7\nstartxref\n9\n%%EOF"])
def test_what_is_no_pdf_is_refused(document):
    with pytest.raises(ValueError, match="PDF"):
        with_info(document, "", "", "")


def test_a_png_has_sound_chunks_with_the_words():
    picture, texts, at = figure().as_bytes("png"), {}, 8
    while at < len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        kind, content = picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length]
        check = picture[at + 8 + length : at + 12 + length]
        assert struct.unpack(">I", check)[0] == zlib.crc32(kind + content)
        if kind == b"iTXt":
            name, _, rest = content.partition(b"\0")
            texts[name.decode()] = rest[4:].decode()
        at += 12 + length
    assert texts["Title"] == HOSTILE.title
    assert texts["Description"] == HOSTILE.whole


def test_files_are_named_after_the_figure(tmp_path):
    written = figure().save(tmp_path / "new", ("svg", "pdf", "png"))
    assert [path.name for path in written] == ["name.svg", "name.pdf", "name.png"]
    assert all(path.stat().st_size for path in written)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        figure().save(tmp_path / "file")


def test_an_album_gives_every_figure_a_name_of_its_own():
    album = Album()
    places = [album.add(drawing(), HOSTILE) for _ in range(3)]
    assert [f.words.name for f in album.figures] == ["name", "name-2", "name-3"]
    assert [re.search('id="(.*?)"', place)[1] for place in places] == ["name", "name-2", "name-3"]
    assert album.add("", HOSTILE) == ""


def test_an_origin_has_the_newest_first_and_counts_what_is_not_recorded():
    rows = pd.DataFrame(
        {
            "recorded_at": pd.to_datetime(["2026-01-01", "2026-01-03", "2026-01-02"]),
            "git_commit": ["1" * 40, "2" * 40 + "-dirty", None],
            "suite_version": ["0.1.0"] * 3,
        }
    )
    found = origin_of(rows)
    assert found.words() == "cab 0.1.0, commits 22222222-dirty, 11111111"
    assert origin_of(rows[["recorded_at"]]).words() == "cab, commit not recorded"
    assert of_all([found, Origin((), ("new", "11111111"))]).commits[-1] == "new"


def test_a_chart_of_the_dashboard_is_named_captioned_and_saved_with_its_words():
    chart = alt.Chart(pd.DataFrame({"x": [1.0]})).mark_point().encode(x="x:Q")
    track, origin = Track("causal-self", "small", "cpu"), Origin(("0.1.0",), ("abc",))
    words = words_of("latency forward", "Latency", "median", track, origin)
    assert words.name == "latency-forward-causal-self-small-cpu"
    spec = captioned(chart.properties(height=100), words).to_dict()
    assert spec["usermeta"]["embedOptions"]["downloadFileName"] == words.name
    assert spec["title"]["text"] == "Latency"
    assert spec["title"]["subtitle"] == [
        "median",
        "causal-self (small, cpu); cab 0.1.0, commit abc",
    ]
    saved = figure_of(chart.properties(height=100), words)
    texts = [node.text for node in ElementTree.fromstring(saved.svg).iter(f"{SVG}text")]
    assert "causal-self (small, cpu); cab 0.1.0, commit abc" in texts
    assert saved.as_bytes("pdf").startswith(b"%PDF")
