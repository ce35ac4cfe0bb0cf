"""Superlinear multi-step attention: search a few spans of keys, then attend to them and a window.

Huang 2026, arXiv 2601.18401, N = 2 steps, with the author's package. Keys and values are shared by
the steps; the first has a query of its own, q' = W_s q. Query i stands at place t; n is t less the
first valid place, and one.

    window   the keys t - w + 1 .. t,  w = floor((s + 1)^(1/p)) - 1
    search   anchors a_m = t - floor(m^(1/p)) + 1 for m = s + 1, s + 2, .. while a_m >= 0, the first
             of which lies just left of the window; the `spans` of them with the largest q'·k_a
    span     max(first valid, a - ceil(b n^c)) .. min(a + ceil(f n^c), t - w)
    o_i = sum over spans m of softmax_m(q'·k_am) · softmax attention of q over span m and window

So a query reads O(n^c) keys and scores O(n^p) anchors. Each span has its own softmax together with
the window, the scores of the search (not over sqrt(D)) weigh them, and are what W_s learns from: no
gradient goes through the choice. With p = c = 1/2 and b >= 2 every key before the window lies in
the span of some anchor, so that none is out of reach; with b = 1 that does not hold, and b below 2
is refused. Among equal scores the nearer anchor is taken. Where there is no anchor, the output is
that of the window.

In causal cross attention, which the paper does not have, all queries stand at the last valid key of
the source: adapted. Without an order that ends at the query there is no search.

What differs from the paper and its code: the search projection is a linear map (D, D) of each
head's query, the identity at first, instead of one of the layer's input; masked keys are no
anchors.

The choice is made query by query, so nothing later takes part in it. Decoding keeps every key, as
any may lie in a span, and reads those that the token chooses.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.key_ranges import range_attention, share_of_first
from attentions.shared.masks import valid_lengths
from attentions.shared.positions import at_positions, prompt_at_positions
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_NO_ORDER = "the search goes back from a query's place: without an order that ends there is none"
_NUMBERS = 1 << 17
"""Products of a query's and a key's numbers that are alive at a time in the search"""


class _Routes(NamedTuple):
    """What each query reads; (B, H, Lq, spans + 1) integers, the window last."""

    anchors: Tensor
    """(B, H, Lq, spans) places, 0 where there is none"""
    found: Tensor
    """(B, H, Lq, spans) bool"""
    first: Tensor
    last: Tensor
    """One behind the last key; 0 where there is nothing"""


@register_attention(
    AttentionInfo(
        id="superlinear",
        family=Family.SPARSE,
        title="Superlinear multi-step attention",
        formula="o_i = sum over the best m of softmax_m(W q_i·k_a(m)) softmax attention of q_i "
        "over (span at a(m) ∪ window), a(m) = i - floor(m^(1/p)) + 1, spans of length O(i^c)",
        patterns={
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        absent={Pattern.NONCAUSAL_SELF: _NO_ORDER, Pattern.NONCAUSAL_CROSS: _NO_ORDER},
        time="L (w + L^0.5) D",
        memory="L D",
        paper="Huang, Superlinear Multi-Step Attention",
        year=2026,
        url="https://arxiv.org/abs/2601.18401",
        options=(
            Option("sw_index", 7, "s: the window has floor((s + 1)^(1/p)) - 1 keys", positive=True),
            Option("spans", 3, "spans that a query reads", positive=True),
            Option("back", 2.0, "b: keys of a span before its anchor, times n^c", least=2),
            Option("forward_factor", 0.0, "f: keys of a span after its anchor, times n^c", least=0),
            Option("search_power", 0.5, "p: a query scores about n^p anchors", most=1),
            Option("span_power", 0.5, "c: spans have about n^c keys", least=0, most=1),
        ),
        presets={
            "released": {"sw_index": 65, "spans": 3, "back": 3.0, "forward_factor": 1.0,
                         "search_power": 0.55, "span_power": 0.55},
        },
    )
)  # fmt: skip
class SuperlinearAttention(PartialReads, KeyValueCache):
    """Softmax over a window and spans of keys that a search chooses for each query."""

    def __init__(
        self,
        spec: AttentionSpec,
        sw_index: int = 7,
        spans: int = 3,
        back: float = 2.0,
        forward_factor: float = 0.0,
        search_power: float = 0.5,
        span_power: float = 0.5,
    ) -> None:
        super().__init__(spec)
        if not 0.1 <= search_power <= 1:
            raise ValueError(f"search_power must be from 0.1 to 1, not {search_power:g}")
        self.sw_index, self.spans, self.power = sw_index, spans, search_power
        self.back, self.ahead, self.span_power = back, forward_factor, span_power
        self.window = anchor_distance(sw_index + 1, search_power)
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        eye = torch.eye(spec.head_dim)
        self.search = nn.Parameter(eye.repeat(spec.heads, 1, 1))

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        mask = None if context is None else context.key_mask
        seeking = self._seeking(q)
        routes = self._route(seeking, k, mask)
        gates = self._gates(seeking, k, routes)
        out, lse = range_attention(q, k, v, routes.first, routes.last, mask)
        # Softmax over a span and the window is that over each, by their shares of the weight.
        shares = gates * share_of_first(lse[..., :-1], lse[..., -1:])
        shares = torch.cat([shares, 1 - shares.sum(-1, keepdim=True)], -1)
        return (shares[..., None] * out).sum(-2).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense scores of all keys, and a dense softmax for each span."""
        length_q, length_k = q.shape[2], k.shape[2]
        valid = torch.ones(q.shape[0], length_k, dtype=torch.bool, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        j = torch.arange(length_k, device=q.device)
        t = self._places(length_q, length_k, valid, q.device)[:, None, :, None]
        begin = torch.where(valid, j, length_k).amin(-1)[:, None, None, None]
        n = (t + 1 - begin).clamp(min=0)
        scores = torch.einsum("bhid,hde->bhie", q, self.search.to(q.dtype)) @ k.mT
        distances = torch.tensor(self._distances(length_k), device=q.device)
        anchor = torch.isin(t - j, distances) & valid[:, None, None]
        # Nearer keys first, so that they win a tie.
        ranked = (
            scores.masked_fill(~anchor, float("-inf"))
            .flip(-1)
            .sort(dim=-1, descending=True, stable=True)
        )
        window = (j > t - self.window) & (j <= t)
        near = exact_softmax_attention(q, k, v, window & valid[:, None, None])
        best = ranked.values[..., : self.spans]
        some = best > float("-inf")
        gates = best.masked_fill(~some.any(-1, keepdim=True), 0.0).softmax(-1).masked_fill(~some, 0)
        out = near * (1 - gates.sum(-1, keepdim=True))
        back, ahead = (self._reach(factor, n) for factor in (self.back, self.ahead))
        for m in range(best.shape[-1]):
            a = length_k - 1 - ranked.indices[..., m, None]
            span = (j >= a - back) & (j <= a + ahead) & (j <= t - self.window) & some[..., m, None]
            read = (span | window) & valid[:, None, None]
            out = out + gates[..., m, None] * exact_softmax_attention(q, k, v, read)
        return out

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keep the keys, values and key mask of the prompt or source."""
        mask = None if context is None else context.key_mask
        return super().prefill(k, v, AttentionContext(key_mask=mask))

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`; a key in several spans of a query counts once."""
        mask = context.key_mask
        routes = self._route(self._seeking(q), k, mask)
        if mask is None:
            mask = torch.ones(q.shape[0], k.shape[2], dtype=torch.bool, device=q.device)
        before = F.pad(mask.cumsum(-1), (1, 0))[:, None, None].expand(*q.shape[:3], -1)
        first, order = routes.first.sort(dim=-1)
        last = routes.last.gather(-1, order).cummax(-1).values
        # What a span begins with may have been read by those that began before it.
        first = torch.maximum(first, F.pad(last[..., :-1], (1, 0)))
        read = (before.gather(-1, last) - before.gather(-1, first)).clamp(min=0).sum(-1)
        if context.query_mask is not None:
            read = read * context.query_mask[:, None]
        return read.sum(-1).double()

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each key of window and spans, 2 B H D for each anchor, and W_s q."""
        t = self._places(shape.length_q, shape.length_k, None, torch.device("cpu"))[0]
        anchors = self._counts(shape.length_k)[t].double()
        back, ahead = (self._reach(factor, t + 1) for factor in (self.back, self.ahead))
        far = (t + 1 - self.window).clamp(min=0)
        span = torch.minimum(back + ahead + 1, far) * anchors.clamp(max=self.spans)
        pairs = ((t + 1).clamp(max=self.window) + span).sum().item()
        width, rows = shape.head_dim + shape.value_dim, shape.batch * shape.heads
        search = (anchors.sum().item() + shape.length_q * shape.head_dim) * shape.head_dim
        return 2.0 * rows * (pairs * width + search)

    def _places(
        self, length_q: int, length_k: int, mask: Tensor | None, device: torch.device
    ) -> Tensor:
        """(B or 1, Lq) place among the keys at which each query stands."""
        if self.causal:
            return torch.arange(length_k - length_q, length_k, device=device)[None]
        if mask is None:
            return torch.full((1, length_q), length_k - 1, device=device)
        return (valid_lengths(mask) - 1)[:, None].expand(-1, length_q)

    def _distances(self, length: int) -> list[int]:
        """From a query to its anchors in a sequence, ascending."""
        found, m = [], self.sw_index + 1
        while (distance := anchor_distance(m, self.power)) < length:
            found.append(distance)
            m += 1
        return found

    def _counts(self, length: int) -> Tensor:
        """(L,) anchors of a query at each place."""
        distances = torch.tensor(self._distances(length), dtype=torch.long)
        return torch.zeros(length, dtype=torch.long).index_fill_(0, distances, 1).cumsum(0)

    def _reach(self, factor: float, n: Tensor) -> Tensor:
        """ceil(factor n^c), the same whatever the last bit of the power is."""
        return (factor * n.double().pow(self.span_power) * (1 - 1e-12)).ceil().long()

    def _seeking(self, q: Tensor) -> Tensor:
        """(B, H, Lq, D) queries of the search, in float32 at least."""
        dtype = torch.promote_types(q.dtype, torch.float32)
        return q.to(dtype) @ self.search.to(dtype)

    @torch.no_grad()
    def _route(self, seeking: Tensor, k: Tensor, mask: Tensor | None) -> _Routes:
        """Window and spans of each query."""
        batch, heads, length_q = seeking.shape[:3]
        length = k.shape[2]
        t = self._places(length_q, length, mask, k.device)
        distances = self._distances(length)
        k = k.to(seeking.dtype)
        # In cross attention, and in a step, all queries have the same anchors.
        search = self._shifted if self.causal and length_q > 1 else self._at_one_place
        anchors, found = search(seeking, k, mask, t, distances)
        begin = t.new_zeros(1, 1, 1, 1)
        if mask is not None:
            places = torch.arange(length, device=k.device)
            begin = torch.where(mask, places, length).amin(-1)[:, None, None, None]
        t = t[:, None, :, None]
        n = (t + 1 - begin).clamp(min=0)
        first = torch.maximum(anchors - self._reach(self.back, n), begin)
        last = torch.minimum(anchors + self._reach(self.ahead, n), t - self.window) + 1
        window = (t + 1 - self.window).clamp(min=0).expand(batch, heads, -1, -1)
        here = (t + 1).expand(batch, heads, -1, -1)
        return _Routes(
            anchors,
            found,
            torch.cat([first.where(found, 0), window], -1),
            torch.cat([last.where(found, 0), here], -1),
        )

    def _shifted(
        self, seeking: Tensor, k: Tensor, mask: Tensor | None, t: Tensor, distances: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Search with queries that stand one behind the other: an anchor is a shift of the keys."""
        batch, heads, count, dim = seeking.shape
        lag = k.shape[2] - count
        step = max(1, _NUMBERS // (batch * heads * dim))
        parts = []
        for start in range(0, count, step):
            end = min(count, start + step)
            near = [d for d in distances if d < lag + end]
            scores = seeking.new_full((batch, heads, end - start, len(near)), float("-inf"))
            for m, distance in enumerate(near):
                low = max(start, distance - lag)
                own = slice(lag + low - distance, lag + end - distance)
                found = (seeking[:, :, low:end] * k[:, :, own]).sum(-1)
                if mask is not None:
                    found.masked_fill_(~mask[:, None, own], float("-inf"))
                scores[:, :, low - start :, m] = found
            parts.append(self._best(scores, t[:, start:end], near))
        return torch.cat([p[0] for p in parts], 2), torch.cat([p[1] for p in parts], 2)

    def _at_one_place(
        self, seeking: Tensor, k: Tensor, mask: Tensor | None, t: Tensor, distances: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Search with queries that all stand at one place."""
        away = torch.tensor(distances, dtype=torch.long, device=k.device)
        anchors = t[:, :1] - away
        hidden, anchors = anchors < 0, anchors.clamp(min=0)
        if mask is not None:
            hidden = hidden | ~mask.gather(1, anchors.expand(len(mask), -1))
        index = anchors[:, None, :, None].expand(*k.shape[:2], -1, k.shape[-1])
        scores = seeking @ k.gather(2, index).mT
        scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
        return self._best(scores, t, distances)

    def _best(self, scores: Tensor, t: Tensor, distances: list[int]) -> tuple[Tensor, Tensor]:
        """The anchors of the largest scores (B, H, n, anchors), which are written to."""
        shape = (*scores.shape[:3], self.spans)
        anchors = torch.zeros(shape, dtype=torch.long, device=scores.device)
        found = torch.zeros(shape, dtype=torch.bool, device=scores.device)
        away = torch.tensor(distances, dtype=torch.long, device=scores.device)
        for m in range(min(self.spans, len(distances))):
            best, index = scores.max(-1, keepdim=True)
            found[..., m] = best[..., 0] > float("-inf")
            anchors[..., m] = t[:, None] - away[index[..., 0]]
            scores.scatter_(-1, index, float("-inf"))
        return anchors.masked_fill_(~found, 0), found

    def _gates(self, seeking: Tensor, k: Tensor, routes: _Routes) -> Tensor:
        """(B, H, Lq, spans) softmax of the scores of the anchors found, zero for the others."""
        batch, heads, length, dim = k.shape
        pair = torch.arange(batch * heads, device=k.device).view(batch, heads, 1, 1)
        rows = (routes.anchors + pair * length).flatten()
        keys = k.reshape(-1, dim).index_select(0, rows).to(seeking.dtype)
        scores = (seeking[..., None, :] * keys.view(*routes.anchors.shape, dim)).sum(-1)
        scores = scores.masked_fill(~routes.found, float("-inf"))
        none = ~routes.found.any(-1, keepdim=True)
        return scores.masked_fill(none, 0.0).softmax(-1).masked_fill(~routes.found, 0.0)


def anchor_distance(m: int, power: float) -> int:
    """floor(m^(1/p)) - 1: from a query to its anchor m."""
    inverse = 1 / power
    whole = round(inverse)
    return (m**whole if abs(inverse - whole) < 1e-9 else int(m**inverse)) - 1
