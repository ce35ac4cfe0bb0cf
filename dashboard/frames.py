"""Sheets as Streamlit shows them: the same lines, with numbers that a reader can sort by."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from cab.sheets.sheet import Sheet

_SMALL, _MEDIUM = "small", "medium"


def frame_of(sheet: Sheet) -> pd.DataFrame:
    """The lines of a sheet; where a column has a number behind its words, the number."""
    return pd.DataFrame(
        [
            {
                column.heading: line.data[column.key] if column.key else words
                for column, words in zip(sheet.columns, line.shown, strict=True)
            }
            for line in sheet.lines
        ],
        columns=[column.heading for column in sheet.columns],
    )


def show_signed(sheet: Sheet) -> None:
    """Draw a sheet whose numbers are log-ratios: with their sign, and three digits."""
    st.dataframe(
        frame_of(sheet),
        hide_index=True,
        column_config={
            column.heading: st.column_config.NumberColumn(format="%+.3f", help=column.help or None)
            if column.right and column.key
            else st.column_config.TextColumn(help=column.help or None)
            for column in sheet.columns
        },
    )
