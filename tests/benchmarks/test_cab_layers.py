"""Layers that are timed beside those of CAB's library compute the same where they are said to."""

import os

import pytest
import torch

from benchmarks.attentions.cab_layers import EMBED, PEERS, build, load_library, names, peer
from benchmarks.attentions.cab_library import measure
from cab import Pattern

LIBRARY = os.environ.get("CAB_LIBRARY", "")
needs_library = [
    pytest.mark.skipif(not LIBRARY, reason="CAB_LIBRARY does not say where CAB's library is"),
    pytest.mark.filterwarnings("ignore"),
]
EQUAL = [(name, pattern) for name, known in PEERS.items() for pattern in known.equal]
ALL = [(name, pattern) for name in names() for pattern in Pattern if peer(name, pattern)]


def label(value):
    return value if isinstance(value, str) else value.abbreviation


@pytest.fixture(scope="module")
def library():
    return load_library(LIBRARY)


class TestLibrary:
    """What needs the library."""

    pytestmark = needs_library

    @pytest.mark.parametrize(("name", "pattern"), EQUAL, ids=label)
    def test_equal_layers_are_equal(self, library, name, pattern):
        torch.manual_seed(0)
        layers = build(library, name, pattern, 40)
        layers.ours.double()
        layers.theirs.double()
        x = torch.randn(2, 40, EMBED, dtype=torch.float64)
        source = torch.randn_like(x) if pattern.cross else x
        ours, theirs = layers.attend_ours(x, source), layers.attend_theirs(x, source)
        assert (ours - theirs).norm() <= 1e-12 * theirs.norm()

    @pytest.mark.parametrize(("name", "pattern"), ALL, ids=label)
    def test_every_pair_can_be_timed(self, library, name, pattern):
        point = measure(library, name, pattern, 64, rounds=5, train=True)
        assert all(len(s) == 5 and min(s) > 0 for s in (*point.wall_s, *point.cpu_s))


def test_a_folder_without_the_library_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="clone Shark-NLP/CAB"):
        load_library(str(tmp_path))
