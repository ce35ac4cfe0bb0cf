"""Phases of a timed call, in words."""

from __future__ import annotations

PHASES = {"forward": "forward", "forward_backward": "forward + backward", "decode": "decode"}
"""In the order in which tables have them"""
SHORT = {"forward": "fwd", "forward_backward": "fwd+bwd", "decode": "decode"}
"""For the narrow column of a table"""
