"""Draw the pictures of the README from the present code: ``make pictures``.

python docs/build_pictures.py [run] [dashboard]

``run.svg`` is what the main command prints, run anew in an empty folder (four minutes on two idle
cores); ``dashboard.png`` is the first page of ``cab dashboard`` on the reference results, in a
headless Chromium.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from cab.cli import app
from cab.cli.console import console

IMAGES = Path(__file__).resolve().parent / "images"
COMMAND = ("cab", "run", "--attn", "lla", "--pattern", "causal-cross")
COLUMNS = 92
"""Characters; the SVG is as wide as a README is on a page"""
WIDTH, HEIGHT = 1280, 860
"""Pixels of the browser's window"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Draw those that are named, or both."""
    drawn = {"run": draw_run, "dashboard": draw_dashboard}
    named = sys.argv[1:] or list(drawn)
    for name in named:
        if name not in drawn:
            print(f"no picture {name!r}: {', '.join(drawn)}", file=sys.stderr)
            return 2
    for name in named:
        drawn[name]()
    return 0


def draw_run() -> None:
    """What the main command prints on a terminal of `COLUMNS` characters."""
    console.width = COLUMNS
    console.record = True
    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)):
        sys.argv = list(COMMAND)
        try:
            app.main()
        except SystemExit as end:
            if end.code != 0:
                raise
    (IMAGES / "run.svg").write_text(whole_svg(console, " ".join(COMMAND)), encoding="utf-8")


def whole_svg(recorded: Console, title: str) -> str:
    """What a console has recorded, as wide as its widest line.

    Lines that are left to the terminal to wrap may be wider than the console, at whose width rich
    cuts them.
    """
    lines = recorded.export_text(clear=False).splitlines()
    recorded.width = max([COLUMNS, *map(cell_len, lines)])
    return recorded.export_svg(title=title, theme=SVG_EXPORT_THEME, unique_id="run")


def draw_dashboard() -> None:
    """The leaderboard of causal-cross as it opens on the reference results."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("the dashboard's picture needs playwright: make pictures") from None
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with (
        tempfile.TemporaryDirectory() as folder,
        _served(Path(folder)) as address,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=browser_path)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(address)
        page.get_by_text("causal-cross (CC)").click(timeout=60_000)
        page.get_by_role("heading", name="Leaderboard: causal-cross").wait_for(timeout=60_000)
        page.locator("[data-testid=stVegaLiteChart] canvas, svg.marks").first.wait_for()
        page.wait_for_load_state("networkidle")
        # Columns are as wide as their words were before the page had its fonts: drawn anew.
        for section in ("Entries", "Quality"):
            page.get_by_test_id("stButtonGroup").get_by_text(section, exact=True).click()
            page.wait_for_timeout(2000)
        page.screenshot(path=IMAGES / "dashboard.png")
        browser.close()


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Address of a dashboard that runs in an empty folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cab", "dashboard", "--headless", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if str(port) in line:
                break
        else:
            raise SystemExit("the dashboard did not start")
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
