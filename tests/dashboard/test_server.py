"""``cab dashboard`` as a process: it serves where nothing was ever configured, and ends if told."""

import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from tests.cli.conftest import CAB

PATIENCE = 90.0


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def healthy(port):
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=5) as page:
            return page.status == 200
    except OSError:
        return False


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_server_starts_in_an_empty_home_and_ends_with_the_command(tmp_path, ending):
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    env = {**os.environ, "HOME": str(home), "BROWSER": "true"}
    env.pop("STREAMLIT_SERVER_HEADLESS", None)
    process = subprocess.Popen(
        [*CAB, "dashboard", "--port", str(port)], env=env, cwd=tmp_path, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while not healthy(port) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.3)
        assert healthy(port)
        process.send_signal(ending)
        said, _ = process.communicate(timeout=30)
        assert "Email" not in said
        assert "Traceback" not in said
        assert not healthy(port)
    finally:
        process.kill()
        process.wait()
