"""Every pattern that a registered attention claims."""

import pytest

from cab.registries import ATTENTIONS


def _claims(entries):
    return [
        pytest.param(entry, pattern, id=f"{entry.id}-{pattern.abbreviation}")
        for entry, patterns in entries
        for pattern in patterns
    ]


def _hardest(entry):
    """The causal pattern first, of self attention before cross: it has the most rules."""
    return max(entry.info.patterns, key=lambda pattern: (pattern.causal, not pattern.cross))


ENTRIES = ATTENTIONS.entries().values()
CLAIMS = _claims((entry, entry.info.patterns) for entry in ENTRIES)
"""All of them"""
ONE_EACH = _claims((entry, [_hardest(entry)]) for entry in ENTRIES)
"""The hardest of each entry"""
