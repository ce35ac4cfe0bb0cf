"""Window attention with sinks: the first tokens stay in sight (Xiao et al. 2024, arXiv 2309.17453).

    o_i = softmax_j(q_i·k_j / sqrt(D)) v_j   over the first n_s keys and the last w keys up to i

Softmax has to put its weight somewhere, and trained models put it on the first tokens, whatever
they are; a window that has lost them breaks down. StreamingLLM keeps n_s = 4 of them beside a
window of recent keys. The paper's other cure is a sink that is learned:
with ``sink_logit`` a head has a score s of its own, of a key whose value is zero, as GPT-OSS has:

    p_ij = exp(q_i·k_j / sqrt(D)) / (exp(s) + sum_l exp(q_i·k_l / sqrt(D)))

The first keys are the first ones that are there; the window counts positions, so that a masked key
leaves a gap in it. The authors number positions within the cache; here positions are the
backbone's, and keys bring their own.

What the authors did not report, with the same formula: noncausal self attention, where the window
is the w keys on each side; and cross attention, whose queries stand at the last key of the source,
as if they were the next tokens of that stream: they read its first n_s keys and its last w.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax
from attentions.shared.key_ranges import keys_in_runs, union_attention
from attentions.shared.places import query_places
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


@register_attention(
    AttentionInfo(
        id="swa-sink",
        family=Family.WINDOWED,
        title="Sliding window with attention sinks (StreamingLLM)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over j < n_s and i - w < j <= i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L w D",
        memory="L D",
        paper="Xiao et al., Efficient Streaming Language Models with Attention Sinks",
        year=2024,
        url="https://arxiv.org/abs/2309.17453",
        options=(
            Option("sinks", 4, "n_s: keys at the beginning that all read", least=0),
            Option("window", 128, "w: keys up to the query's own, or on each side of it where "
                   "noncausal", positive=True),
            Option("sink_logit", False, "a learned score of each head for a key without a value"),
        ),
        presets={
            "streaming-llm": {"window": 1020},
            "gpt-oss": {"sinks": 0, "window": 128, "sink_logit": True},
        },
    )
)  # fmt: skip
class SlidingWindowWithSinks(PartialReads):
    """Softmax over a window of keys and the first ones."""

    def __init__(
        self, spec: AttentionSpec, sinks: int = 4, window: int = 128, sink_logit: bool = False
    ) -> None:
        super().__init__(spec)
        self.sinks, self.window = sinks, window
        self.ahead = window if spec.pattern is Pattern.NONCAUSAL_SELF else 0
        self.before = window if self.ahead else window - 1
        self.logit = nn.Parameter(torch.zeros(spec.heads)) if sink_logit else None

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        mask = None if context is None else context.key_mask
        first, last = self._runs(q, k, mask)
        return union_attention(q, k, v, first, last, mask, self._extra()).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax under a mask."""
        length_k = k.shape[2]
        valid = torch.ones(q.shape[0], length_k, dtype=torch.bool, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        j = torch.arange(length_k, device=q.device)
        i = torch.arange(q.shape[2], device=q.device)[None, :, None] + length_k - q.shape[2]
        if self.pattern.cross:
            i = torch.where(valid, j, -1).amax(-1)[:, None, None].expand(-1, q.shape[2], -1)
        rank = valid.cumsum(-1)[:, None]
        sees = (rank <= self.sinks) | (j >= i - self.before) & (j <= i + self.ahead)
        if self.pattern is Pattern.CAUSAL_SELF:
            sees = sees & (j <= i)
        return self._dense(q, k, v, (sees & valid[:, None])[:, None])

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The first ``sinks`` keys, and those of the next token's window that are not among them.

        ``count`` (B,) says how many of the first are there, ``mask`` (B, w) which of the window.
        """
        length = k.shape[2]
        valid = torch.ones(k.shape[0], length, dtype=torch.bool, device=k.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        rank = valid.cumsum(-1)
        first = (~valid).long().sort(dim=-1, stable=True).indices[:, : self.sinks]
        spare = (0, 0, 0, self.sinks - first.shape[1])
        kept = self.before + self.pattern.cross
        here = query_places(1, length, self.pattern.cross, valid, k.device)
        near = here - torch.arange(min(kept, length) - 1, -1, -1, device=k.device)
        near = near.expand(len(valid), -1)
        inside = valid.gather(1, near.clamp(min=0)) & (near >= 0)
        inside = inside & (rank.gather(1, near.clamp(min=0)) > self.sinks)
        tensors = {"count": rank[:, -1:].sum(-1).clamp(max=self.sinks), "mask": inside}
        for name, x in (("k", k), ("v", v)):
            tensors[f"first_{name}"] = F.pad(_at(x, first), spare)
            tensors[name] = _at(x, near.clamp(min=0))
        return DecodeState(length, tensors)

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Put the token among the first keys while there is room, else into the window; attend."""
        tensors = state.tensors
        k, v, mask = tensors["k"], tensors["v"], tensors["mask"]
        slot = torch.arange(self.sinks, device=q_t.device)
        if k_t is not None and v_t is not None:
            room = tensors["count"] < self.sinks
            own = (slot == tensors["count"][:, None]) & room[:, None]
            for name, new in (("first_k", k_t), ("first_v", v_t)):
                tensors[name] = torch.where(own[:, None, :, None], new, tensors[name])
            tensors["count"] = tensors["count"] + room
            k, v = torch.cat([k, k_t], 2), torch.cat([v, v_t], 2)
            mask = torch.cat([mask, ~room[:, None]], 1)
            kept = slice(max(0, k.shape[2] - self.before), None)
            tensors["k"], tensors["v"] = k[:, :, kept], v[:, :, kept]
            tensors["mask"] = mask[:, kept]
            state.length += 1
        sees = torch.cat([slot < tensors["count"][:, None], mask], 1)[:, None, None]
        keys, values = torch.cat([tensors["first_k"], k], 2), torch.cat([tensors["first_v"], v], 2)
        wide = torch.promote_types(v.dtype, torch.float32)
        out = self._dense(q_t.to(wide), keys.to(wide), values.to(wide), sees)
        return out.to(v.dtype), state

    def state_size(self, length: int) -> int:
        """2 H D numbers for each of the first keys and of at most w others."""
        kept = self.sinks + min(length, self.before + self.pattern.cross)
        return 2 * self.spec.heads * self.spec.head_dim * kept

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        first, last = self._runs(q, k, context.key_mask)
        return keys_in_runs(first, last, k.shape[2], context, q)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair of a query and a key that it reads."""
        length = shape.length_k
        width = min(length, self.sinks + self.before + 1 + self.ahead)
        pairs = float(shape.length_q * width)
        if self.pattern is Pattern.CAUSAL_SELF:
            short = max(0, width - max(0, length - shape.length_q))
            pairs -= short * (short - 1) / 2
        return 2 * shape.batch * shape.heads * pairs * (shape.head_dim + shape.value_dim)

    def _extra(self) -> Tensor | None:
        """(1, H, 1, 1) score of the key without a value."""
        return None if self.logit is None else self.logit[None, :, None, None]

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, sees: Tensor) -> Tensor:
        """Softmax over the keys that are seen, written out."""
        if self.logit is None:
            return exact_softmax(q, k, sees) @ v
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~sees, -math.inf)
        extra = self.logit.to(q.dtype)[None, :, None, None].expand(*q.shape[:3], 1)
        return torch.cat([scores, extra], -1).softmax(-1)[..., :-1] @ v

    @torch.no_grad()
    def _runs(self, q: Tensor, k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B or 1, 1, Lq, 2): the first keys, and the window as far as it is behind them."""
        length = k.shape[2]
        place = query_places(q.shape[2], length, self.pattern.cross, mask, q.device)
        last = (place + self.ahead + 1).clamp(max=length)
        end = torch.full_like(last[:, :1], min(self.sinks, length))
        if mask is not None:
            # Up to the last of the first valid keys.
            end = (mask.cumsum(-1) - mask.long() < self.sinks).sum(-1, keepdim=True)
        if self.pattern is Pattern.CAUSAL_SELF:
            end = torch.minimum(end, last)
        end, last = torch.broadcast_tensors(end, last)
        start = torch.maximum((place - self.before).clamp(min=0), end)
        runs = torch.stack([torch.zeros_like(start), start, end, last], -1)[:, None]
        return runs[..., :2], runs[..., 2:]


def _at(x: Tensor, places: Tensor) -> Tensor:
    """(B, H, n, D) of tokens (B, H, L, D) at places (B, n)."""
    return x.gather(2, places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1]))
