"""Times as people write them: ``90m``, ``2h``, ``1h30m``, ``45s``."""

from __future__ import annotations

import re

from cab.errors import UsageError


def parse_time(words: str | float) -> float:
    """Seconds of ``90m``, ``2h``, ``1h30m`` or ``45s``; a number is itself.

    Raises:
        UsageError: it is no such time, or none at all.
    """
    if isinstance(words, float):
        return words
    found = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", words.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600.0 * hours + 60 * minutes + seconds
    if not total:
        raise UsageError(f"--time-budget {words!r} is no time; write 45s, 90m, 2h or 1h30m")
    return total
