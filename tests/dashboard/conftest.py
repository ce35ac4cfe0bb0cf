from __future__ import annotations

import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cab import result_sources
from tests.dashboard.reader import APP, Open
from tests.dashboard.stores import StoreBuilder


@pytest.fixture(autouse=True)
def _main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page runs as `__main__`; processes that later tests start would run it again."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def store(tmp_path: Path) -> StoreBuilder:
    return StoreBuilder(tmp_path / "results")


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setenv("CAB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(result_sources, "REFERENCE", tmp_path / "reference")

    def run() -> AppTest:
        page = AppTest.from_file(APP, default_timeout=60).run()
        assert not page.exception
        return page

    return run
