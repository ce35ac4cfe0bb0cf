"""mTAND: attention by time alone, with learned embeddings of continuous time (Shukla and Marlin
2021, arXiv 2101.10318; as used by Zhang et al. 2023, arXiv 2210.12156, section 3.1).

    phi(t) = [w t + u, sin(W t + b)]
    p_ij = softmax_j((W_q phi(t_i))·(W_k phi(t_j)) / sqrt(d)),   o_i = sum_j p_ij v_j

over the keys that row i sees, with an embedding that the heads share and a W_q and W_k of each
head. **Queries and keys are not read**: only their times - the context's time stamps, or else
positions, or else places in the sequence.

Irregular series have values that were not observed. The softmax of a channel c of the values is
over the keys j where it was, m_jc = 1:

    o_ic = sum_j p_ij m_jc v_jc / sum_j p_ij m_jc

which is one softmax over all keys and a quotient of two of its means. `forward` takes ``observed``
for it; a context has masks of whole tokens alone. A channel that was never observed gives zero.

What differs from the authors: every head has values of its own, where theirs all attend to the same
input values and a linear layer mixes them; weights are not dropped out. They bring the times of a
data set to 0 .. 1, which no causal mechanism can do that does not know the end; here times are
divided by the option ``span``, and the frequencies W start log-uniform between 1 and ``span``, so
that a difference of one unit is seen, where theirs start uniform in -1 .. 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax
from attentions.shared.masks import visible
from attentions.shared.places import token_times
from attentions.shared.prefix_sums import safe_divide
from cab import (
    Attention,
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
        id="mtand",
        family=Family.CONVOLUTIONAL,
        title="mTAND (multi-time attention)",
        formula="o_i = softmax_j(W_q phi(t_i)·W_k phi(t_j) / sqrt(d)) v_j, "
        "phi(t) = [w t + u, sin(W t + b)]",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L^2",
        paper="Shukla and Marlin, Multi-Time Attention Networks for Irregularly Sampled Time "
        "Series",
        year=2021,
        url="https://arxiv.org/abs/2101.10318",
        options=(
            Option("embed_time", 16, "numbers of a time's embedding, all heads", least=2),
            Option("span", 100.0, "unit of time, about the longest in the data", positive=True),
        ),
        presets={"multimodal-ehr": {"embed_time": 64}},
    )
)
class MultiTimeAttention(Attention):
    """Softmax over products of learned embeddings of time."""

    def __init__(self, spec: AttentionSpec, embed_time: int = 16, span: float = 100.0) -> None:
        super().__init__(spec)
        self.span = span
        self.width = max(1, embed_time // spec.heads)
        """Of a head's queries and keys"""
        self.trend = nn.Linear(1, 1)
        self.periodic = nn.Linear(1, embed_time - 1)
        with torch.no_grad():
            self.periodic.weight.uniform_(0.0, abs(math.log(span))).exp_()
        self.query = nn.Linear(embed_time, spec.heads * self.width)
        self.key = nn.Linear(embed_time, spec.heads * self.width)

    @without_autocast
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: AttentionContext | None = None,
        observed: Tensor | None = None,
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Args:
            observed: (B, H or 1, Lk, Dv) bool, True where a number of the values was observed.
        """
        times = token_times(context, q.shape[-2], k.shape[-2], self.pattern.cross, self._like())
        queries, keys = self._embedded(times[0], self.query), self._embedded(times[1], self.key)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        return self._attend(queries, keys, v, mask, observed)

    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: AttentionContext | None = None,
        observed: Tensor | None = None,
    ) -> Tensor:
        """Softmax written out; one for each channel where values were not all observed."""
        times = token_times(context, q.shape[-2], k.shape[-2], self.pattern.cross, self._like())
        queries, keys = self._embedded(times[0], self.query), self._embedded(times[1], self.key)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if observed is None:
            return exact_softmax(queries, keys, mask).expand(*v.shape[:2], -1, -1) @ v
        channels = []
        for c in range(v.shape[-1]):
            sees = observed[..., None, :, c] if mask is None else observed[..., None, :, c] & mask
            channels.append(exact_softmax(queries, keys, sees) @ v[..., c, None])
        return torch.cat(channels, dim=-1)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The keys' embeddings, the values and the mask, and the place of the next query."""
        _, times = token_times(context, 0, k.shape[-2], self.pattern.cross, self._like())
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        place = times.new_zeros(1, 1)
        if not self.pattern.cross and k.shape[-2]:
            place = times[:, -1:] + 1
        keys = self._embedded(times, self.key).expand(k.shape[0], -1, -1, -1)
        return DecodeState(k.shape[-2], {"k": keys, "v": v, "mask": mask, "place": place})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Append the token's key and value, if it has any, and attend with its time.

        Without a time or position in the context it stands one behind the token before.
        """
        tensors, given = state.tensors, context or AttentionContext()
        time = tensors["place"]
        for own in (given.query_times, given.query_positions):
            if own is not None:
                time = torch.atleast_2d(own).to(time)
                break
        if v_t is not None:
            key = self._embedded(time, self.key).expand(len(v_t), -1, -1, -1)
            tensors["k"] = torch.cat([tensors["k"], key], dim=-2)
            tensors["v"] = torch.cat([tensors["v"], v_t], dim=-2)
            tensors["mask"] = F.pad(tensors["mask"], (0, 1), value=True)
            state.length += 1
        tensors["place"] = time + 1
        mask = tensors["mask"][:, None, None]
        out = self._attend(self._embedded(time, self.query), tensors["k"], tensors["v"], mask, None)
        return out, state

    def state_size(self, length: int) -> int:
        """H L (d + Dv) numbers."""
        return self.spec.heads * length * (self.width + self.spec.value_dim)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lq Lk (d + Dv), half of it in causal self attention; embeddings, which a batch may
        share, are not counted.
        """
        half = 0.5 if self.pattern is Pattern.CAUSAL_SELF else 1.0
        pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
        return half * 2 * pairs * (self.width + shape.value_dim)

    def _like(self) -> Tensor:
        return self.query.weight

    def _embedded(self, times: Tensor, projection: nn.Linear) -> Tensor:
        """(B or 1, H, L, d) queries or keys of times (B or 1, L)."""
        t = times[..., None] / self.span
        code = torch.cat([self.trend(t), self.periodic(t).sin()], dim=-1)
        projected: Tensor = projection(code)
        return projected.unflatten(-1, (self.spec.heads, -1)).transpose(1, 2)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, observed: Tensor | None
    ) -> Tensor:
        """Softmax attention of embeddings (B or 1, H, L, d) that are shared by the batch, or not.

        Args:
            mask: broadcastable to (B, H, Lq, Lk), True where a key is seen, or None.
        """
        dtype = torch.promote_types(v.dtype, torch.float32)
        batch = v.shape[0]
        q, k = (x.to(dtype).expand(batch, -1, -1, -1) for x in (q, k))
        values = v.to(dtype)
        if observed is not None:
            seen = observed.to(dtype).expand_as(v)
            values = torch.cat([values.masked_fill(seen == 0, 0.0), seen], dim=-1)
        if mask is None:
            out = F.scaled_dot_product_attention(q, k, values)
        else:
            sees = mask.any(-1, keepdim=True)
            out = F.scaled_dot_product_attention(q, k, values, attn_mask=mask | ~sees)
            out = out.masked_fill(~sees, 0.0)
        if observed is not None:
            means, share = out.chunk(2, dim=-1)
            out = safe_divide(means, share)
        return out.to(v.dtype)
