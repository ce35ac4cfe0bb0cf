"""Sizes in words: lengths, and lists of numbers and dtypes whose product is a sweep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cab.cli.words import LONGEST_SEQUENCE, shown, whole
from cab.errors import UsageError

if TYPE_CHECKING:
    import torch

_DTYPES = {
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
    "fp32": "float32",
    "float32": "float32",
}
_MOST_PERCENT = 1000
_DIGITS = 12
"""Of a length; more is out of bounds anyway"""


def parse_lengths(text: str) -> tuple[int, ...]:
    """``1k..64k`` (doubling) or ``256,1k,4096``; k is 1024.

    Raises:
        UsageError: it is neither.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        low = _length(first, text)
        if not dots:
            found.add(low)
            continue
        high = _length(last, text)
        if high < low:
            raise UsageError(f"--lengths {text!r}: {last.strip()} is less than {first.strip()}")
        while low <= high:
            found.add(low)
            low *= 2
    return tuple(sorted(found))


def parse_numbers(flag: str, text: str, most: int) -> tuple[int, ...]:
    """``8`` or ``8,16``, each once, in the order given.

    Raises:
        UsageError: one is no whole number, or out of bounds.
    """
    parse = whole(flag, 1, most)
    return tuple(dict.fromkeys(parse(word) for word in text.split(",")))


def parse_percent(flag: str, text: str) -> float:
    """``5`` or ``5 %`` as a share.

    Raises:
        UsageError: it is no number from 0 to 1000.
    """
    match = re.fullmatch(r"\s*([0-9]{1,4}(\.[0-9]{1,6})?)\s*%?\s*", text)
    if not match or float(match[1]) > _MOST_PERCENT:
        raise UsageError(f"{flag} takes a percentage from 0 to {_MOST_PERCENT}, not {shown(text)}")
    return float(match[1]) / 100


def parse_dtypes(text: str) -> tuple[torch.dtype, ...]:
    """``bf16`` or ``float32,bfloat16``.

    Raises:
        UsageError: there is no such dtype.
    """
    import torch

    found = []
    for word in text.split(","):
        name = word.strip().lower()
        if name not in _DTYPES:
            raise UsageError(f"unknown dtype {shown(word)}; choose from bf16, fp16, fp32")
        found.append(getattr(torch, _DTYPES[name]))
    return tuple(dict.fromkeys(found))


def _length(word: str, text: str) -> int:
    match = re.fullmatch(r"\s*0*([0-9]+)\s*([kK]?)\s*", word)
    if not match or match[1] == "0":
        raise UsageError(
            f"--lengths takes 1k..64k (doubling) or a list such as 256,1k,4096, not {shown(text)}"
        )
    number = int(match[1][:_DIGITS]) * (1024 if match[2] else 1)
    if number > LONGEST_SEQUENCE or len(match[1]) > _DIGITS:
        raise UsageError(f"--lengths {shown(text)}: {LONGEST_SEQUENCE} tokens at most")
    return number
