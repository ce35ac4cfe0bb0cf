from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboard.reader import APP, Open
from tests.dashboard.stores import StoreBuilder


@pytest.fixture
def store(tmp_path: Path) -> StoreBuilder:
    return StoreBuilder(tmp_path / "results")


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setenv("CAB_RESULTS", str(tmp_path / "results"))

    def run() -> AppTest:
        page = AppTest.from_file(APP, default_timeout=60).run()
        assert not page.exception
        return page

    return run
