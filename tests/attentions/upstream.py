"""Plain-torch references that other packages publish, to hold our entries to.

They are loaded by file: importing ``fla.ops`` needs triton and more. Most compute in float32
whatever they are given, so that they agree with ours to about 1e-5.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

NEAR = 1e-5
"""Largest difference, of numbers around 1, from a reference that computes in float32"""


def flash_linear_attention(path: str) -> ModuleType:
    """A module of flash-linear-attention, as ``ops/gla/naive.py``."""
    return _loaded("fla", path)


def attention_gym(path: str) -> ModuleType:
    """A module of attention-gym, likewise."""
    return _loaded("attn_gym", path)


def _loaded(package: str, path: str) -> ModuleType:
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is a dependency of the tests: pip install -e '.[dev]'"
    file = Path(next(iter(spec.submodule_search_locations))) / path
    name = f"upstream_{package}_{path.removesuffix('.py').replace('/', '_')}"
    if name not in sys.modules:
        own = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(own)
        own.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def tokens_first(*tensors):
    """(B, H, L, ...) as (B, L, H, ...), their layout; and back."""
    return tuple(x.transpose(1, 2) for x in tensors)
