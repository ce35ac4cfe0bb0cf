"""The name of an entry behind a convolution, ``lla@conv4``, and its target (no torch).

The width stands behind the name of the entry, and before its place in the target:
``conv4@attentions.lla:LocalLinearAttention``. No id has an @, and no path is meant by one there.
"""

from __future__ import annotations

import re
from dataclasses import replace

from cab.errors import UsageError
from cab.info import AttentionInfo, Kind

LEAST, MOST = 2, 64
"""Widths: one token is no convolution, and this many are no short one"""

_NAME = re.compile(r"(?P<name>.+)@conv(?P<width>\d{1,9})")
_TARGET = re.compile(r"conv(?P<width>\d{1,9})@(?P<target>.+)", re.DOTALL)


def convolved_name(name: str, width: int) -> str:
    """``lla@conv4``; also of a target.

    Raises:
        UsageError: a width that is none.
    """
    if not LEAST <= width <= MOST:
        raise UsageError(f"a short convolution is {LEAST} to {MOST} tokens wide, not {width}")
    return f"{name}@conv{width}"


def parse_name(name: str) -> tuple[str, int] | None:
    """The entry's name and the width; None where the name is not of that form."""
    found = _NAME.fullmatch(name)
    return (found["name"], int(found["width"])) if found else None


def target_of(target: str, width: int) -> str:
    """The target of a convolved entry, of that of the entry."""
    return f"conv{width}@{target}"


def parse_target(target: str) -> tuple[str, int] | None:
    """The inverse of `target_of`; None where it is another target."""
    found = _TARGET.fullmatch(target)
    return (found["target"], int(found["width"])) if found else None


def convolved_info(info: AttentionInfo, width: int) -> AttentionInfo:
    """The record: the entry's, under its own name.

    Raises:
        UsageError: of a modifier, which changes a layer after training; or a width that is none.
    """
    if info.kind is Kind.MODIFIER:
        raise UsageError(
            f"{info.id} changes a softmax layer after training, and has no convolution before it"
        )
    return replace(
        info,
        id=convolved_name(info.id, width),
        title=f"{info.title}, behind a convolution of width {width}",
        formula=f"{info.formula}; q, k, v each convolved over {width} tokens before",
    )
