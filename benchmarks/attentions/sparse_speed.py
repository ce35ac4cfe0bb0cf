"""Forward passes of sparse mechanisms beside fused causal softmax, on one thread of the CPU.

    python -m benchmarks.attentions.sparse_speed [--length 8192] [--rounds 7] [--out FILE] [ID ...]

Contenders take turns in rounds, and the ratio of seconds is taken within a round. Seconds are those
of the processor, not of the wall: neighbours change a wall time by more than what is asked here.
The settings read at most 15 % of the visible pairs, which `density` checks on the same inputs.
With ``--out docs/sparse_speed.json`` docs/build_speed.py shows them on docs/speed.md; rows of
entries that are not named stay as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

import cab
from benchmarks.printing import median_and_quartiles, plain_table
from benchmarks.timing import Call, Prepare, Race, paired, processor_seconds, spread
from cab.density import ReadsShare
from runners.environment import cpu_name

BATCH, HEADS, DIM = 1, 4, 64
BASELINE = "softmax"
MOST = 0.15
"""Of the visible pairs"""

SETTINGS: dict[str, tuple[str, str, dict[str, int | float | str]]] = {
    "local": ("local", "CS", {}),
    "local, 512 keys": ("local", "CS", {"window": 512}),
    "neighborhood": ("neighborhood", "CS", {}),
    "neighborhood NS": ("neighborhood", "NS", {}),
    "inward-swa NS": ("inward-swa", "NS", {}),
    "power-attention": ("power-attention", "CS", {}),
    "power-attention, blocks of 64": ("power-attention", "CS", {"block": 64}),
    "psa": (
        "psa",
        "CS",
        {"block": 64, "query_block": 64, "share_1": 0.09, "share_2": 0.04, "share_4": 0.0,
         "share_8": 0.2},
    ),
    "rectified-spa": ("rectified-spa", "CS", {"block": 64, "density": 0.1, "p_remain": 0.0}),
    "superlinear": ("superlinear", "CS", {}),
    "routing": ("routing", "CS", {}),
    "routing, 512 keys": ("routing", "CS", {"window": 512}),
    "routing NS": ("routing", "NS", {"density": 0.0}),
    "biformer-bra NS": ("biformer-bra", "NS", {}),
    "biformer-bra NS, 16 regions of 64": ("biformer-bra", "NS", {"block": 64, "topk": 16}),
    "paro NS": ("paro", "NS", {"density": 0.1}),
    "paro NS, one order, 1 query of a block": (
        "paro",
        "NS",
        {"density": 0.1, "samples": 1, "reorder": False},
    ),
    "dhsa": ("dhsa", "CS", {"query_block": 128, "density": 0.1, "near_keys": 64}),
}  # fmt: skip
"""Id, pattern and options, by what a row is called"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ids", nargs="*", metavar="ID", help="default: all")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a .json file to write the seconds to")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {n: x for n, x in SETTINGS.items() if not asked.ids or x[0] in asked.ids}
    modules = {
        name: cab.attention(
            entry, pattern=pattern, heads=HEADS, head_dim=DIM, max_length=asked.length, **options
        ).eval()
        for name, (entry, pattern, options) in chosen.items()
    }
    generator = torch.Generator().manual_seed(0)

    def drawn() -> list[Tensor]:
        shape = (BATCH, HEADS, asked.length, DIM)
        return [torch.randn(shape, generator=generator) for _ in range(3)]

    def prepare(module: cab.Attention | None) -> Prepare:
        def inputs() -> Call:
            q, k, v = drawn()
            if module is None:
                return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return lambda: module(q, k, v)

        return inputs

    contenders = {BASELINE: prepare(None)} | {n: prepare(m) for n, m in modules.items()}
    with torch.inference_mode():
        for prepared in contenders.values():
            prepared()()
        rounds = dict.fromkeys(contenders, asked.rounds)
        seconds = Race(contenders, BASELINE, rounds, processor_seconds).run()
        q, k, _ = drawn()
        densities = {
            name: module.density(q, k).mean().item()
            for name, module in modules.items()
            if isinstance(module, ReadsShare)
        }
    table = plain_table(
        f"Forward at L={asked.length}, B={BATCH}, H={HEADS}, D={DIM}: causal softmax takes "
        f"{spread(seconds[BASELINE]).median:.3g} s",
        "mechanism", "density", "times faster, median and quartiles",
    )  # fmt: skip
    for name in modules:
        density = densities.get(name)
        said = "" if density is None else f"{100 * density:.1f} %"
        if density is not None and density > MOST:
            said += " (above what is compared)"
        faster = spread(paired(seconds[BASELINE], seconds[name]))
        table.add_row(name, said, median_and_quartiles(faster))
    Console(width=120, highlight=False).print(table)
    if asked.out is not None:
        known = json.loads(asked.out.read_text()) if asked.out.exists() else {}
        for name in modules:
            entry, pattern, options = chosen[name]
            known[name] = {
                "entry": entry, "pattern": pattern, "options": options, "length": asked.length,
                "density": densities.get(name), "softmax": seconds[BASELINE],
                "seconds": seconds[name], "processor": cpu_name(), "torch": torch.__version__,
            }  # fmt: skip
        rows = {name: known[name] for name in SETTINGS if name in known}
        asked.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
