"""Names of the numbers that efficiency cells record, and of the same numbers of a baseline that was
measured beside the candidate: each is written down here alone.
"""

from __future__ import annotations

from cab.controls import BASELINE

LATENCY = "latency"
"""Seconds of a call; of a token, in the phase decode"""
LATENCY_RATIO = "latency_ratio"
"""Latency over that of the baseline, which was timed in turns with it"""
PEAK_MEMORY = "peak_memory"
"""Bytes that the process took beyond the inputs"""
TRACED_MEMORY = "traced_memory"
"""Bytes of all tensors that were alive at once: the same in every process"""
STATE_BYTES = "state_bytes"
"""What a decoding step carries to the next"""
ENERGY_PER_TOKEN = "energy_per_token"
DENSITY = "density"
"""Share of the visible pairs that a sparse mechanism read (`cab.density`); of quality cells too"""


def ratio_baseline(metric: str) -> str | None:
    """The baseline of a ratio of latencies, as far as its name tells; None of other metrics."""
    if metric == LATENCY_RATIO:
        return BASELINE
    head, _, name = metric.partition(f"{LATENCY_RATIO}_")
    return name.replace("_", "-") if name and not head else None


def of_baseline(metric: str, baseline: str) -> str:
    """The name of a baseline's own number: ``traced_memory_softmax_exact``."""
    return f"{metric}_{baseline.replace('-', '_')}"


def ratio_to(baseline: str) -> str:
    """The name of the ratio of latencies to a baseline's: ``latency_ratio`` to softmax's, and
    ``latency_ratio_softmax_exact``.
    """
    return LATENCY_RATIO if baseline == BASELINE else of_baseline(LATENCY_RATIO, baseline)
