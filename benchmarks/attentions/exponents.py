"""Whether what claims to cost less than the square of the length does, for every such entry.

    python -m benchmarks.attentions.exponents [--rounds 3] [--pattern NS] [ID ...]

Forward and backward passes at lengths that double from 1,024 to 16,384, on one thread of the CPU.
The exponent of time is the slope over the four longest lengths of the processor's seconds, the
lengths in turns; that of memory is the slope of the traced peak, which is the same every time. A
claim holds where neither slope is above the one that the record claims by more than 0.2: a
logarithm counts as exponent 0 there, and caches bend a line as much.

Cross attention runs the code of the noncausal form, so it is looked at where there is no other.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

import cab
from benchmarks.printing import plain_table
from benchmarks.timing import Call, Prepare, Race, processor_seconds, spread
from cab import AttentionContext, Kind
from cab.info import AttentionInfo
from cab.patterns import Pattern
from cab.scoring.growth import claimed_exponent, power_law
from runners.efficiency.memory import keep_freed_memory
from runners.efficiency.trace import traced_peak

LENGTHS = (1024, 2048, 4096, 8192, 16384)
HEADS, DIM = 2, 16
"""Narrow, so that no block is so large that it is mapped anew, page by page, for every call"""
ABOVE = 0.2


@dataclass(frozen=True)
class Claim:
    """Exponents that a record claims."""

    name: str
    pattern: Pattern
    time: float
    memory: float


@dataclass(frozen=True)
class Found:
    """Exponents that were measured, and the cost of the longest call."""

    time: float
    memory: float
    seconds: float
    peak_bytes: int

    def verdict(self, claim: Claim) -> str:
        """``holds``, or what does not."""
        above = [
            name
            for name, measured, claimed in (
                ("time", self.time, claim.time),
                ("memory", self.memory, max(1.0, claim.memory)),  # the output itself is linear
            )
            if measured > claimed + ABOVE
        ]
        return " and ".join(above) + " above the claim" if above else "holds"


def claims(infos: list[AttentionInfo]) -> list[Claim]:
    """Of the entries that claim less than the square of the length, controls apart."""
    found = []
    for info in infos:
        noncausal = info.grade(Pattern.NONCAUSAL_SELF) is not None
        for pattern in info.patterns:
            time, memory = (claimed_exponent(t, pattern.causal) for t in (info.time, info.memory))
            repeats = pattern.cross and (noncausal or pattern.causal)
            if info.kind is Kind.CONTROL or repeats or time is None or time >= 2:
                continue
            found.append(Claim(info.id, pattern, time, 2.0 if memory is None else memory))
    return found


def prepare(claim: Claim, length: int) -> Prepare:
    """Forward and backward of one entry on fresh inputs."""
    attention = cab.attention(
        claim.name, pattern=claim.pattern, heads=HEADS, head_dim=DIM, embed_dim=HEADS * DIM,
        max_length=length,
    ).eval()  # fmt: skip

    def inputs() -> Call:
        q, k, v = (torch.randn(1, HEADS, length, DIM, requires_grad=True) for _ in range(3))
        own, gradient = torch.randn(1, length, HEADS * DIM), torch.randn(1, HEADS, length, DIM)
        context = AttentionContext(query_input=own, key_input=own)

        def forward_backward() -> Tensor:
            out = attention(q, k, v, context)
            out.backward(gradient)
            return out.detach()

        return forward_backward

    return inputs


def measure(claim: Claim, rounds: int) -> Found:
    """Both slopes."""
    contenders = {length: prepare(claim, length) for length in LENGTHS}
    peaks = {length: traced_peak(inputs()) for length, inputs in contenders.items()}
    by_name = {str(length): inputs for length, inputs in contenders.items()}
    longest = str(LENGTHS[-1])
    seconds = Race(by_name, longest, dict.fromkeys(by_name, rounds), processor_seconds).run()
    time = power_law({length: [spread(seconds[str(length)]).median] for length in LENGTHS})
    memory = power_law({length: [float(peak)] for length, peak in peaks.items()})
    assert time is not None
    assert memory is not None
    return Found(
        time.exponent.value, memory.exponent.value, spread(seconds[longest]).median,
        peaks[LENGTHS[-1]],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ids", nargs="*", metavar="ID", help="default: all")
    parser.add_argument("--pattern", type=Pattern.parse)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    table = plain_table(
        f"Forward and backward, B=1, H={HEADS}, D={DIM}, L={LENGTHS[0]}..{LENGTHS[-1]}",
        "entry", "time", "claimed", "memory", "claimed", "longest s", "MiB", "verdict",
    )  # fmt: skip
    chosen = [
        claim
        for claim in claims(cab.attentions())
        if (not asked.ids or claim.name in asked.ids) and asked.pattern in (None, claim.pattern)
    ]
    broken = 0
    for claim in chosen:
        found = measure(claim, asked.rounds)
        said = found.verdict(claim)
        broken += said != "holds"
        print(
            f"{claim.name} {claim.pattern.abbreviation}: time {found.time:.2f}, {said}", flush=True
        )
        table.add_row(
            f"{claim.name} {claim.pattern.abbreviation}", f"{found.time:.2f}", f"{claim.time:g}",
            f"{found.memory:.2f}", f"{claim.memory:g}", f"{found.seconds:.2f}",
            f"{found.peak_bytes / 2**20:.0f}", said,
        )  # fmt: skip
    Console(width=140, no_color=True, highlight=False).print(table)
    print(f"{len(chosen) - broken} of {len(chosen)} claims hold")


if __name__ == "__main__":
    main()
