import os

import pytest

LONG = ("tests/cli/", "tests/runners/", "tests/test_", "tests/cab/test_wrong", "tests/attacks/")
"""Files whose tests start processes or train: minutes each"""


def pytest_collection_modifyitems(items):
    """Long files first: at the end no core is left alone with one."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="session", autouse=True)
def _plan_cache(tmp_path_factory, worker_id):
    """What planning keeps goes to a folder of this run of the tests, not to the user's."""
    base = tmp_path_factory.getbasetemp()
    os.environ["CAB_CACHE"] = str((base if worker_id == "master" else base.parent) / "cache")
