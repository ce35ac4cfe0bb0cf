"""Names that results are read against, and names of what is measured: each is written down here
alone.
"""

from __future__ import annotations

BASELINE = "softmax"
"""The entry that ratios and differences are taken to."""
NO_ATTENTION = "none"
"""What a task gives without any attention."""
EXACT = "softmax-exact"
"""Softmax with its products written out, as most candidates are, without a fused kernel."""

CONTROLS = (BASELINE, NO_ATTENTION)
"""Measured beside every candidate, once: the store remembers them."""
REFERENCE_CONTROLS = (*CONTROLS, EXACT)
"""What the reference results hold of every task."""

QUALITY, LATENCY, MEMORY, ENERGY = "quality", "latency", "memory", "energy"
MEASURES = (QUALITY, LATENCY, MEMORY)
"""What a run measures unless it is told otherwise, and all that it takes."""
COSTS = (LATENCY, MEMORY)
"""Those of them that efficiency cells measure."""
BENCH_MEASURES = (*COSTS, ENERGY)
"""What `cab bench` measures."""
DISTURBED = "disturbed"
"""Among the outcomes that are tried again: costs that were measured while others kept the machine
busy"""
