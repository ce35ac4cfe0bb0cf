"""What a reader does with the page, and what there is to read on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from streamlit.testing.v1 import AppTest

import dashboard

APP = Path(dashboard.__file__).with_name("app.py")
SECTIONS = ("Quality", "Cost", "Training", "Samples", "Entries")

Open = Callable[[], AppTest]


def go(page: AppTest, section: str) -> AppTest:
    page.segmented_control(key="section").set_value(section).run()
    assert not page.exception
    return page


def choose(page: AppTest, label: str, *values: str) -> AppTest:
    """Set the sidebar filter of that label."""
    sidebar = page.sidebar
    [widget] = [w for w in (*sidebar.multiselect, *sidebar.selectbox) if w.label == label]
    widget.set_value(list(values) if widget.type == "multiselect" else values[0]).run()
    assert not page.exception
    return page


def table(page: AppTest, *columns: str) -> pd.DataFrame:
    """The first table on the page with these columns."""
    for shown in page.dataframe:
        if set(columns) <= set(shown.value.columns):
            return shown.value
    raise AssertionError(f"no table with {columns}")


def leaderboard(page: AppTest) -> pd.DataFrame:
    return table(page, "Rank", "Index")


def ranks(page: AppTest) -> list[tuple[str, str]]:
    board = leaderboard(page)
    return list(zip(board["Rank"], board["Entry"], strict=True))


def words(page: AppTest) -> str:
    """All running text of the page, without the backslashes that keep Markdown from reading it."""
    elements = (
        *page.markdown, *page.caption, *page.info, *page.error, *page.subheader, *page.title
    )  # fmt: skip
    return "\n".join(str(element.value) for element in elements).replace("\\", "")
