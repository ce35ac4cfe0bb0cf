import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _plan_cache(tmp_path_factory, worker_id):
    """What planning keeps goes to a folder of this run of the tests, not to the user's."""
    base = tmp_path_factory.getbasetemp()
    os.environ["CAB_CACHE"] = str((base if worker_id == "master" else base.parent) / "cache")
