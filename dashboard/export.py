"""Charts that can leave the page, named after what they show.

A chart carries its caption, its track and the code that measured it below its title, so a picture
of the page says them too. Below it stand links to the chart as a file, with the same words and in
its fields. The name is also in the chart's own record, for viewers of Vega-Lite that read it there;
Streamlit's button for a PNG does not, and names its file by the time.
"""

from __future__ import annotations

import altair as alt
from streamlit.delta_generator import DeltaGenerator

from cab.report.figure import Figure, Words
from cab.report.svg import GREY
from cab.scoring.origin import Origin
from cab.sheets.naming import slug
from cab.track import Track

Chart = alt.Chart | alt.LayerChart | alt.FacetChart
_MIME = {"svg": "image/svg+xml", "pdf": "application/pdf"}
_FILE_WIDTH = 560
"""Pixels of the drawing in a file; on the page a chart is as wide as its place"""


def show_chart(place: DeltaGenerator, chart: Chart, words: Words, offset: int = 8) -> None:
    """Draw a chart with its words, and the links to its files below it.

    Args:
        place: where it stands on the page.
        chart: with a height.
        words: what it shows.
        offset: pixels between the words and the drawing.
    """
    place.altair_chart(captioned(chart, words, offset), width="stretch")
    row = place.container(horizontal=True)
    for ending, mime in _MIME.items():

        def made(ending: str = ending) -> bytes:
            return figure_of(chart, words, offset).as_bytes(ending)

        row.download_button(
            ending.upper(),
            made,
            file_name=f"{words.name}.{ending}",
            mime=mime,
            # Titles differ where names, which are simpler, may not.
            key=f"{words.name}.{ending} of {words.title}",
            help=f"Save as {words.name}.{ending}",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
        )


def words_of(name: str, title: str, caption: str, track: Track, origin: Origin) -> Words:
    """What a chart of a track says of itself; the track is put behind the name."""
    named = slug(name, track.pattern, track.scale, track.device)
    return Words(named, title, caption, track.title, origin.words())


def captioned(chart: Chart, words: Words, offset: int = 8) -> Chart:
    """The chart as the page shows it."""
    title = alt.Title(
        words.title,
        subtitle=[words.caption, words.origin],
        subtitleColor=GREY,
        subtitleFontSize=10,
        subtitleFontWeight="normal",
        offset=offset,
    )
    return chart.properties(
        title=title,
        description=f"{words.title}. {words.whole}",
        usermeta={"embedOptions": {"downloadFileName": words.name}},
    )


def figure_of(chart: Chart, words: Words, offset: int = 8) -> Figure:
    """The chart as a file: the words that the page has below its title stand below the drawing."""
    import vl_convert

    whole = chart.properties(
        title=alt.Title(words.title, offset=offset, anchor="start"),
        width=_FILE_WIDTH,
        background="white",
        padding=12,
    )
    drawing: str = vl_convert.vegalite_to_svg(whole.to_dict())
    return Figure.of(drawing, words)
