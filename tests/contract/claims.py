"""Every pattern that a registered attention claims."""

import pytest

from cab.registries import ATTENTIONS


def _claims(marked):
    return [
        pytest.param(
            entry,
            pattern,
            id=f"{entry.id}-{pattern.abbreviation}",
            marks=marked if pattern is not _hardest(entry) else (),
        )
        for entry in ATTENTIONS.entries().values()
        for pattern in entry.info.patterns
    ]


def _hardest(entry):
    """The causal pattern first, of self attention before cross: it has the most rules."""
    return max(entry.info.patterns, key=lambda pattern: (pattern.causal, not pattern.cross))


CLAIMS = _claims(())
"""All of them"""
ONE_EACH = _claims(pytest.mark.slow)
"""All of them, and those beyond one of each entry only in the slow tests"""
