"""Whether FlexAttention pays on the CPU: its compiled forward pass beside the block-sparse engine.

    python -m benchmarks.attentions.flex_blocks [--length 8192] [--density 0.1] [--rounds 9]

The same blocks of 128 x 128 pairs, drawn at random with the diagonal, on one thread; both sides
take turns and a ratio of the processor's seconds is taken within a round. Compiling needs a C++
compiler and is done anew for other sizes. FlexAttention has no backward pass on the CPU, which is
asked here as well.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from attentions.shared.block_sparse import block_sparse_attention
from attentions.shared.block_tiles import BlockLists, lists_of
from benchmarks.printing import median_and_quartiles
from benchmarks.timing import Call, Prepare, Race, paired, processor_seconds, spread

HEADS, DIM, BLOCK = 4, 64, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    kept = blocks(asked.length, asked.density, generator)
    mask = create_block_mask(
        lambda b, h, i, j: kept[h, i // BLOCK, j // BLOCK],
        None, HEADS, asked.length, asked.length, device="cpu", BLOCK_SIZE=BLOCK,
    )  # fmt: skip
    compiled = torch.compile(flex_attention)

    def drawn() -> list[Tensor]:
        shape = (1, HEADS, asked.length, DIM)
        return [torch.randn(shape, generator=generator) for _ in range(3)]

    def flex() -> Call:
        q, k, v = drawn()
        return lambda: compiled(q, k, v, block_mask=mask)

    def engine() -> Call:
        q, k, v = drawn()
        return lambda: block_sparse(q, k, v, kept)

    contenders: dict[str, Prepare] = {"engine": engine, "flex": flex}
    console = Console(width=100, highlight=False)
    with torch.inference_mode():
        started = time.perf_counter()
        flex()()
        console.print(f"compiling took {time.perf_counter() - started:.1f} s")
        rounds = dict.fromkeys(contenders, asked.rounds)
        seconds = Race(contenders, "engine", rounds, processor_seconds).run()
    ratio = spread(paired(seconds["engine"], seconds["flex"]))
    share = 100 * kept.float().mean().item()
    console.print(
        f"forward at L={asked.length}, {share:.1f} % of the blocks: the engine takes "
        f"{spread(seconds['engine']).median:.3g} s, compiled FlexAttention is "
        f"{median_and_quartiles(ratio)} times as fast"
    )
    try:
        q, k, v = (x.requires_grad_() for x in drawn())
        compiled(q, k, v, block_mask=mask).sum().backward()
        console.print("it has a backward pass here")
    except NotImplementedError as error:
        console.print(f"no backward pass: {error}", markup=False)


def blocks(length: int, density: float, generator: torch.Generator) -> Tensor:
    """(H, n, n) bool: which blocks each head reads, its diagonal among them."""
    n = -(-length // BLOCK)
    drawn = torch.rand(HEADS, n, n, generator=generator) < density
    return drawn | torch.eye(n, dtype=torch.bool)


def block_sparse(q: Tensor, k: Tensor, v: Tensor, kept: Tensor) -> Tensor:
    """(B, H, L, D): softmax attention to the blocks that are kept, every head a row of its own."""
    lists = lists_of(kept.repeat(len(q), 1, 1)[:, None])
    queries, keys, values = (x.flatten(0, 1)[:, None] for x in (q, k, v))
    out = block_sparse_attention(queries, keys, values, BlockLists(lists, BLOCK, BLOCK))
    return out.view(q.shape)


if __name__ == "__main__":
    main()
