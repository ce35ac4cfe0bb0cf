"""``cab dashboard``: start Streamlit on the results folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from cab.cli.options import require_folder
from cab.errors import UsageError
from cab.own_code import safe_environment, safe_python
from cab.store import ResultStore


def dashboard_command(out: Path, port: int, headless: bool, reference: bool = True) -> int:
    """Serve the dashboard until it is stopped; ``reference`` is what its switch begins with."""
    spec = importlib.util.find_spec("dashboard")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the dashboard is not part of this installation; reinstall cab")
    require_folder(out)
    ResultStore(out).files()
    script = Path(next(iter(spec.submodule_search_locations))) / "app.py"
    command = [
        *safe_python("-m", "streamlit", "run", str(script)),
        "--server.port", str(port),
        "--server.address", "localhost",
        "--server.headless", str(headless).lower(),
        # It asks for an e-mail address where it was never started before, and serves nothing.
        "--server.showEmailPrompt", "false",
        "--browser.gatherUsageStats", "false",
    ]  # fmt: skip
    environment = safe_environment(
        CAB_RESULTS=str(out.resolve()), CAB_REFERENCE="on" if reference else "off"
    )
    if os.name == "posix":
        # In place of this process: a signal to it reaches the server, and none outlives the other.
        sys.stdout.flush()
        os.execve(command[0], command, environment)
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
