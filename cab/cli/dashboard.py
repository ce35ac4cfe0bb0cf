"""``cab dashboard``: start Streamlit on the results folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from cab.errors import UsageError
from cab.store import ResultStore


def dashboard_command(out: Path, port: int, headless: bool) -> int:
    """Serve the dashboard until it is stopped."""
    spec = importlib.util.find_spec("dashboard")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the dashboard is not part of this installation; reinstall cab")
    ResultStore(out).files()
    script = Path(next(iter(spec.submodule_search_locations))) / "app.py"
    command = [
        sys.executable, "-m", "streamlit", "run", str(script),
        "--server.port", str(port),
        "--server.address", "localhost",
        "--server.headless", str(headless).lower(),
        "--browser.gatherUsageStats", "false",
    ]  # fmt: skip
    environment = {**os.environ, "CAB_RESULTS": str(out.resolve())}
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
