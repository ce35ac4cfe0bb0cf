"""The four attention patterns of CAB (Zhang et al., 2022, arXiv 2210.07661, section 3)."""

from __future__ import annotations

from enum import StrEnum

from cab.errors import UnknownEntryError


class Pattern(StrEnum):
    """Where an attention slot stands: {noncausal, causal} x {self, cross}.

    What output ``i`` may depend on:

    ==================  =======================================================================
    ``noncausal-self``  all queries, keys and values of one sequence
    ``causal-self``     tokens up to ``i``; unchanged when later tokens are changed *or removed*
    ``noncausal-cross`` all queries and the whole source
    ``causal-cross``    the whole source and queries up to ``i``; unchanged when later queries
                        are changed *or removed*
    ==================  =======================================================================
    """

    NONCAUSAL_SELF = "noncausal-self"
    CAUSAL_SELF = "causal-self"
    NONCAUSAL_CROSS = "noncausal-cross"
    CAUSAL_CROSS = "causal-cross"

    @property
    def causal(self) -> bool:
        """Whether later queries must not influence an output."""
        return self in (Pattern.CAUSAL_SELF, Pattern.CAUSAL_CROSS)

    @property
    def cross(self) -> bool:
        """Whether keys and values come from another sequence than the queries."""
        return self in (Pattern.NONCAUSAL_CROSS, Pattern.CAUSAL_CROSS)

    @property
    def abbreviation(self) -> str:
        """CAB's two letters: NS, CS, NC or CC."""
        return _ABBREVIATIONS[self]

    @property
    def meaning(self) -> str:
        """One sentence on what an output may depend on."""
        return _MEANINGS[self]

    @classmethod
    def parse(cls, name: str) -> Pattern:
        """The pattern of a name (``causal-cross``) or of CAB's abbreviation (``CC``, any case).

        Raises:
            UnknownEntryError: the name is neither.
        """
        for pattern in cls:
            if name.lower() in (pattern.value, pattern.abbreviation.lower()):
                return pattern
        raise UnknownEntryError("pattern", name, [pattern.value for pattern in cls])


_ABBREVIATIONS = {
    Pattern.NONCAUSAL_SELF: "NS",
    Pattern.CAUSAL_SELF: "CS",
    Pattern.NONCAUSAL_CROSS: "NC",
    Pattern.CAUSAL_CROSS: "CC",
}

_MEANINGS = {
    Pattern.NONCAUSAL_SELF: "any function of all queries, keys and values of one sequence",
    Pattern.CAUSAL_SELF: "output i is unchanged when tokens after i are changed or removed",
    Pattern.NONCAUSAL_CROSS: "any function of all queries and the whole source",
    Pattern.CAUSAL_CROSS: (
        "the whole source is visible; output i is unchanged when queries after i are changed "
        "or removed"
    ),
}
