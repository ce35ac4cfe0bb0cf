"""What papers claim of a mechanism's speed, measured on this machine.

    python -m benchmarks.attentions.speed_claims --out docs/speed.json [--rounds 3] [NAME ...]

Both sides take turns in rounds, on one thread of the CPU, with fresh inputs of one head of 64; a
second is one of the processor. The claims are of GPUs, and of lengths that a CPU can hold too.
docs/build_speed.py writes docs/speed.md of what is found and says which claims hold here. Claims
that are not named keep what the file says of them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import cab
from attentions.neighborhood import NeighborhoodAttention
from benchmarks.attentions.plain import neighborhood
from benchmarks.timing import Call, Prepare, Race, processor_seconds
from cab import AttentionContext
from cab.info import OptionValue
from cab.patterns import Pattern
from runners.efficiency.memory import keep_freed_memory
from runners.environment import cpu_name

DIM = 64
_WARM = 4096
"""Length of a first call, which pays for what is paid once"""


@dataclass(frozen=True)
class SpeedClaim:
    """An entry is so many times faster than something else."""

    name: str
    title: str
    source: str
    claim: str
    entry: str
    pattern: str
    options: dict[str, OptionValue]
    baseline: str
    """``softmax`` or ``straightforward``"""
    factor: float
    """What the seconds of the baseline over those of the entry are to be at least"""
    length: int
    train: bool
    """Whether a backward pass belongs to it"""


@dataclass(frozen=True)
class GrowthClaim:
    """The seconds of an entry grow with no more than a power of the length."""

    name: str
    title: str
    source: str
    claim: str
    entry: str
    pattern: str
    options: dict[str, OptionValue]
    exponent: float
    lengths: tuple[int, ...]
    train: bool


NATTEN = "Faster Neighborhood Attention, arXiv 2403.04690"
CLAIMS: tuple[SpeedClaim | GrowthClaim, ...] = (
    SpeedClaim(
        "rat", "RAT trains faster than attention", "RAT, arXiv 2507.04416",
        "Training is 7 times as fast as with attention at 100 thousand tokens.",
        "rat", "causal-self", {}, "softmax", 7.0, 100_000, train=True,
    ),
    SpeedClaim(
        "power-attention", "PowerAttention reads a prompt faster",
        "PowerAttention, arXiv 2503.03588",
        "A forward pass is 3 times as fast as full attention at 128 thousand tokens.",
        "power-attention", "causal-self", {"block": 256, "window": 5, "sinks": 1},
        "softmax", 3.0, 131_072, train=False,
    ),
    SpeedClaim(
        "neighborhood", "Neighbourhood attention is faster than its naive form", NATTEN,
        "Tiles of products of matrices are 9.95 times as fast as the naive form in one dimension "
        "(895 % more, float32).",
        "neighborhood", "noncausal-self", {}, "straightforward", 9.95, 32_768, train=False,
    ),
    GrowthClaim(
        "neighborhood-growth", "Neighbourhood attention is linear", NATTEN,
        "The cost grows linearly with the length.",
        "neighborhood", "noncausal-self", {}, 1.0, (8_192, 16_384, 32_768, 65_536), train=True,
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    kept = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    for claim in CLAIMS:
        if asked.names and claim.name not in asked.names:
            continue
        seconds = {
            name: [float(f"{s:.4g}") for s in taken]
            for name, taken in measure(claim, asked.rounds).items()
        }
        kept[claim.name] = {
            **asdict(claim), "seconds": seconds, "processor": cpu_name(),
            "torch": torch.__version__,
        }  # fmt: skip
        print(claim.name, seconds, flush=True)
        ordered = {c.name: kept[c.name] for c in CLAIMS if c.name in kept}
        text = json.dumps(ordered, indent=1, ensure_ascii=False)
        asked.out.write_text(text + "\n", encoding="utf-8")


def measure(claim: SpeedClaim | GrowthClaim, rounds: int) -> dict[str, list[float]]:
    """Seconds by contender, round for round: ``entry`` and ``baseline``, or lengths."""
    for name in ("entry",) if isinstance(claim, GrowthClaim) else ("entry", "baseline"):
        prepare(claim, getattr(claim, name), _WARM)()()
    if isinstance(claim, GrowthClaim):
        contenders = {str(n): prepare(claim, claim.entry, n) for n in claim.lengths}
        leader = str(claim.lengths[-1])
    else:
        contenders = {
            "entry": prepare(claim, claim.entry, claim.length),
            "baseline": prepare(claim, claim.baseline, claim.length),
        }
        leader = "entry"
    return Race(contenders, leader, dict.fromkeys(contenders, rounds), processor_seconds).run()


def prepare(claim: SpeedClaim | GrowthClaim, contender: str, length: int) -> Prepare:
    """A pass of the entry, of fused softmax attention or of the entry's straightforward form."""
    pattern = Pattern.parse(claim.pattern)
    attention = cab.attention(
        claim.entry, pattern=pattern, heads=1, head_dim=DIM, max_length=length, **claim.options
    ).eval()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if contender == "softmax":
            return F.scaled_dot_product_attention(q, k, v, is_causal=pattern.causal)
        if contender == "straightforward":
            assert isinstance(attention, NeighborhoodAttention)
            return neighborhood.attend(attention, q, k, v)
        return attention(q, k, v, AttentionContext())

    def inputs() -> Call:
        q, k, v = (torch.randn(1, 1, length, DIM, requires_grad=claim.train) for _ in range(3))

        def one_pass() -> Tensor:
            with torch.set_grad_enabled(claim.train):
                out = attend(q, k, v)
            if claim.train:
                out.backward(torch.ones_like(out))
            return out.detach()

        return one_pass

    return inputs


if __name__ == "__main__":
    main()
