"""Where things lie unless the user says otherwise; names alone, so that commands start at once."""

from __future__ import annotations

from pathlib import Path

DEFAULT_RESULTS = Path("results/runs")
"""The user's results folder"""
