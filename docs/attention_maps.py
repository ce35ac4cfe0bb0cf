"""What each value has to do with each output: the maps that the cards of attentions show.

The map is the derivative of output i by value j, from the mechanism's own code, at 24 tokens. Where
an output is a weighted sum of the values, that is the weight. Tokens are of three kinds, in runs;
queries and keys of one kind point the same way, so that what goes by content shows blocks and what
goes by place shows bands. Parameters are those that a fixed seed begins with. Everything is in
float64, and differences of outputs are exact where outputs are linear in the values. Entries whose
values come from the layer's input are differentiated by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cab import Attention, AttentionContext, AttentionSpec
from cab.attention_contract import build_attention
from cab.info import AttentionInfo, Kind, OptionValue
from cab.patterns import Pattern

HEADS, DIM = 2, 8
TOKENS = 24
SINKS = (0, 9)
"""Keys that all queries like, where a modifier of softmax has to find them"""
_STEP = 1e-4
_ALIKE = 1e-6
"""Part of the derivative that may differ from one weight for all channels"""

SETTINGS: Mapping[str, Mapping[str, OptionValue]] = {
    "abc": {"slots": 4},
    "biformer-bra": {"block": 4, "topk": 2},
    "bigbird": {"block": 2, "random": 2},
    "dhsa": {
        "density": 0.3, "least": 4, "query_block": 4, "first_keys": 2, "near_keys": 4,
        "window": 2, "spacing": 3, "chunk": 3,
    },
    "dsa": {"topk": 6},
    "infllm-v2": {"block": 4, "topk": 1, "first": 1, "local": 1, "run": 4, "stride": 2},
    "inward-swa": {"radius": 3, "radius_height": 1, "radius_width": 1},
    "l2vit": {"window": 6, "form": "alternate"},
    "lara": {"landmarks": 6},
    "linformer": {"rows": 4, "places": 24},
    "local": {"window": 4},
    "local-attender": {"radius": 2},
    "long-short": {"landmarks": 3, "window": 3, "chunk": 4, "causal_window": 4},
    "longformer": {"window": 3},
    "moba": {"block": 4, "topk": 2},
    "neighborhood": {"window": 7},
    "nsa": {"run": 4, "stride": 2, "block": 4, "blocks": 3, "window": 3},
    "nystromformer": {"landmarks": 6},
    "paro": {"block": 4, "density": 0.25},
    "power-attention": {"block": 1, "window": 2},
    "prob-sparse": {"factor": 2},
    "psa": {"block": 8, "query_block": 8},
    "pt-vector": {"neighbours": 5},
    "rat": {"chunk": 4},
    "rectified-spa": {"block": 3, "density": 0.3, "neighbors": 0},
    "reformer-lsh": {"rounds": 1, "buckets": 4, "chunk": 4},
    "relay-glra": {"unit": 6, "relays": 1},
    "routing": {"clusters": 3, "window": 8},
    "softmax+var-redist": {"tau": 0.8},
    "superlinear": {"sw_index": 1, "spans": 1, "span_power": 0.25},
    "swa-sink": {"sinks": 2, "window": 4},
}  # fmt: skip
"""Options as small as the example, where the default ones would let every query see every key"""
LAYERS = {"l2vit": 0}
"""Layer to draw, where layers take turns"""
LENGTHS = {"psa": 32}
GRIDS = {"inward-swa": (4, 6), "paro": (4, 6)}
OF_INPUTS = ("mla",)
"""Entries that make values from the layer's input: its first channels change in their place"""
UPSAMPLED = ("local-attender",)
"""Entries whose cross attention has more queries than keys"""


@dataclass(frozen=True)
class Map:
    """Of one pattern."""

    pattern: Pattern
    values: Tensor
    """(Lq, Lk)"""
    weights: bool
    """Whether outputs are sums of values with these weights; else they are sizes of derivatives"""


def attention_map(cls: type[Attention], pattern: Pattern) -> Map:
    """The map of the first head.

    Raises:
        OptionError: `SETTINGS` names an option that the entry has not.
    """
    info = cls.info
    q, k, v, context = example(info, pattern)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = AttentionSpec(
            pattern, HEADS, DIM, layer_index=LAYERS.get(info.id, 0), layers=2,
            max_length=2 * TOKENS, embed_dim=HEADS * DIM,
        )  # fmt: skip
        module = build_attention(cls, spec, SETTINGS.get(info.id, {})).double().eval()
    switches = module.switches()
    if switches is not None:
        switches.fill_(True)
    derivative = _derivative(module, q, k, v, context, by_input=info.id in OF_INPUTS)
    weights = derivative.diagonal(dim1=-2, dim2=-1).mean(-1)
    rest = derivative - weights[..., None, None] * torch.eye(DIM, dtype=torch.float64)
    if rest.norm() <= _ALIKE * derivative.norm():
        return Map(pattern, weights, weights=True)
    return Map(pattern, derivative.square().sum((-2, -1)).div(DIM).sqrt(), weights=False)


def example(
    info: AttentionInfo, pattern: Pattern
) -> tuple[Tensor, Tensor, Tensor, AttentionContext]:
    """Queries, keys and values (1, H, L, D) of an entry's picture, and their context.

    In cross attention there are half as many queries as keys, each half a place behind every second
    key.
    """
    length_k = LENGTHS.get(info.id, TOKENS)
    length_q = length_k // 2 if pattern.cross else length_k
    if pattern.cross and info.id in UPSAMPLED:
        length_q, length_k = length_k, length_q
    generator = torch.Generator().manual_seed(0)
    sinks = list(SINKS if info.kind is Kind.MODIFIER else ())
    k, source = _tokens(length_k, generator, sinks)
    q, own = _tokens(length_q, generator, [])
    v = torch.randn(1, HEADS, length_k, DIM, generator=generator, dtype=torch.float64)
    if sinks:
        q = q + _DIRECTIONS[3]
    times_k = torch.arange(length_k, dtype=torch.float64)
    times_q = times_k
    if pattern.cross:
        times_q = torch.arange(length_q, dtype=torch.float64) * length_k / length_q + 0.5
    grid = GRIDS.get(info.id)
    context = AttentionContext(
        query_input=own if pattern.cross else source,
        key_input=source,
        query_times=times_q[None],
        key_times=times_k[None],
        query_grid=grid,
        key_grid=grid,
    )
    return q, k, v, context


_RUNS = (5, 3, 4, 3, 5, 4)
"""Tokens of one kind that stand together, for 24 tokens"""
_DIRECTIONS = torch.tensor(
    [[1, 1, 1, 1, 1, 1, 1, 1], [1, -1, 1, -1, 1, -1, 1, -1], [1, 1, -1, -1, 1, 1, -1, -1],
     [1, 1, 1, 1, -1, -1, -1, -1]], dtype=torch.float64,
) * 0.75  # fmt: skip
"""Of the three kinds, and of what a sink has"""


def _tokens(length: int, generator: torch.Generator, sinks: list[int]) -> tuple[Tensor, Tensor]:
    """Tokens (1, H, L, D) of three kinds, and layer inputs (1, L, H D) of them."""
    ends = torch.tensor(_RUNS).cumsum(0) * length / TOKENS
    kinds = torch.searchsorted(ends, torch.arange(length) + 0.5) % 3
    shape = (1, HEADS, length, DIM)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    tokens = _DIRECTIONS[kinds] + 0.5 * noise
    inputs = torch.randn(1, length, HEADS * DIM, generator=generator, dtype=torch.float64)
    tokens[:, :, sinks] += 1.5 * _DIRECTIONS[3]
    inputs[:, sinks, 0] = 50.0
    return tokens, inputs


@torch.no_grad()
def _derivative(
    module: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: AttentionContext,
    *,
    by_input: bool = False,
) -> Tensor:
    """(Lq, Lk, Dv of the output, Dv of the value) of the first head, by central differences.

    Every changed value is a sequence of its own in one batch.
    """
    length, width = v.shape[-2:]
    count = length * width
    steps = torch.zeros(count, length, width, dtype=v.dtype)
    steps.view(count, count).fill_diagonal_(_STEP)
    values = v.repeat(2 * count, 1, 1, 1)
    if not by_input:
        values[:, 0] += torch.cat([steps, -steps])
    batch: dict[str, Any] = {
        name: x.expand(2 * count, *x.shape[1:]) if isinstance(x, Tensor) else x
        for name, x in vars(context).items()
    }
    if by_input:
        batch["key_input"] = batch["key_input"].clone()
        batch["key_input"][..., :width] += torch.cat([steps, -steps])
    heads = (x.expand(2 * count, -1, -1, -1) for x in (q, k))
    out = module(*heads, values, AttentionContext(**batch))[:, 0]
    change = (out[:count] - out[count:]) / (2 * _STEP)
    return change.view(length, width, *change.shape[1:]).permute(2, 0, 3, 1)
