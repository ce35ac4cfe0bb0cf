"""Which of the fixed conditions of a check a test looks at, where it does not look at all."""

import zlib

SHARES = 3


def share_of(*names):
    """A third that follows from names alone, so that tests with many of them see all."""
    return zlib.crc32(" ".join(map(str, names)).encode()) % SHARES, SHARES
