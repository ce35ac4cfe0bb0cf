"""The errors a user can meet.

    CabError
    ├── UsageError                   a request that makes no sense as it stands
    │   ├── UnknownEntryError        an id that no registry holds
    │   ├── UnsupportedPatternError  the attention does not claim the pattern
    │   └── OptionError              an option it does not have, or a bad value for one
    ├── RegistrationError            an entry that cannot be imported or is not what it says
    ├── DataError                    data missing, truncated or altered
    ├── StoreError                   a results folder that cannot be read or written
    └── ContractError                an attention that breaks a rule it promised to keep

The command line prints any of them as one line and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CabError(Exception):
    """Base of every error whose message is meant for the user."""


class UsageError(CabError):
    """A request that makes no sense as it stands (a scale that does not exist, zero seeds)."""


class UnknownEntryError(UsageError):
    """An id that no registry holds; the message suggests what may have been meant, the nearest ids
    last.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], meant: Iterable[str] = ()
    ) -> None:
        known, meant = sorted(known), list(meant)
        alike = difflib.get_close_matches(name, known, n=3, cutoff=0.75 if meant else 0.5)
        near = [*meant, *alike]
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class UnsupportedPatternError(UsageError):
    """The attention does not claim the pattern that was asked for."""


class RegistrationError(CabError):
    """An entry that cannot be imported, or is not what it is registered as."""


class OptionError(UsageError):
    """An option that the attention does not have, or a value that it cannot take."""


class DataError(CabError):
    """Data that is missing, truncated or altered."""


class StoreError(CabError):
    """A results folder that cannot be read or written."""


class ContractError(CabError):
    """An attention that breaks a rule of the attention contract."""
