"""Long-short attention (Transformer-LS): a window and a low-rank summary in one softmax.

Noncausal (Zhu et al. 2021, arXiv 2107.02192, section 3). Per head, with r landmarks:

    P  = softmax over positions of K W_P     (L, r)
    K~ = LN_l(K),  K̄ = LN_s(Pᵀ K~)           (L, D), (r, D);  likewise V~ and V̄
    o_i = softmax([q_i·K̄ᵀ, q_i·K~_win(i)ᵀ] / sqrt(D)) [V̄; V~_win(i)]

win(i) is the block of w tokens that holds i, and floor(w / 2) more on each side.

Causal (section 3.4). Chunks of c tokens; P is a softmax within the chunk, of ρ columns:

    K̄_a = LN_s(P_aᵀ K_a)                     (ρ, D) of each chunk a;  likewise V̄_a
    o_i = softmax([q_i·K̄_aᵀ for a < floor(i / c), q_i·K~_jᵀ for i - w < j <= i] / sqrt(D)) [..]

With c <= w no token falls between the last summary that a query sees and its window. The number of
summaries grows with the length, so the time does with its square, divided by c.

Blocks, windows and chunks are of positions: those of the context, or else places in the sequence,
masked tokens counted. A masked token is in no summary and no window.

Each layer normalisation is over all heads of a token and shared by keys and values.

What differs from the paper and its code:

* P is projected from the head's keys; theirs is from the layer's input;
* the causal form has no Transformer-XL position terms, which would add two projections of the
  model's width a layer;
* where values are not as wide as keys, they have normalisations of their own.

CAB's causal code lets every query attend to chunks of zeros that stand for a memory; here there are
none. Its windows of the noncausal form with w = 1 reach one token to each side; floor(w / 2) is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.masks import visible
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.window_tiles import Summaries
from attentions.shared.windows import windowed_softmax_attention
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


class HeadsLayerNorm(nn.Module):
    """Layer normalisation of a token's heads as one vector, (B, H, L, D); in float32 at least."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(heads * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, L, D)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        tokens = x.transpose(1, 2).flatten(2).to(dtype)
        weight, bias = self.norm.weight.to(dtype), self.norm.bias.to(dtype)
        out = F.layer_norm(tokens, tokens.shape[-1:], weight, bias, self.norm.eps)
        return out.unflatten(2, (x.shape[1], -1)).transpose(1, 2)


@register_attention(
    AttentionInfo(
        id="long-short",
        family=Family.HYBRID,
        title="Long-short attention (Transformer-LS)",
        formula="o_i = softmax([q_i·K̄ᵀ, q_i·LN(K_win(i))ᵀ] / sqrt(D)) [V̄; LN(V_win(i))], K̄ and V̄ "
        "learned weighted means of all tokens, or of each earlier chunk",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={
            Pattern.NONCAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to centre a window on",
            Pattern.CAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to centre a window on",
        },
        time="L (w + r) D; causal L (w + rank L / c) D",
        memory="L D",
        paper="Zhu et al., Long-Short Transformer: Efficient Transformers for Language and Vision",
        year=2021,
        url="https://arxiv.org/abs/2107.02192",
        options=(
            Option("landmarks", 16, "r: summaries of the whole sequence, noncausal", least=0),
            Option("window", 15, "w: tokens in a block, noncausal", positive=True),
            Option("chunk", 32, "c: tokens that are summarised together, causal", positive=True),
            Option("rank", 1, "summaries of a chunk, causal", positive=True),
            Option("causal_window", 64, "w: keys in all, causal; at least c", positive=True),
        ),
        presets={
            "cab": {"landmarks": 16, "window": 15, "chunk": 32, "rank": 1, "causal_window": 256}
        },
    )
)
class LongShortAttention(Attention):
    """One softmax over a window and over learned summaries."""

    def __init__(
        self,
        spec: AttentionSpec,
        landmarks: int = 16,
        window: int = 15,
        chunk: int = 32,
        rank: int = 1,
        causal_window: int = 64,
    ) -> None:
        super().__init__(spec)
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        if self.causal and chunk > causal_window:
            raise ValueError(
                f"a chunk of {chunk} tokens does not fit in a causal_window of {causal_window}: "
                "queries would not see the tokens between them"
            )
        self.chunk = chunk
        self.rank = rank if self.causal else landmarks
        self.segment = 1 if self.causal else window
        self.before = causal_window - 1 if self.causal else window // 2
        self.after = 0 if self.causal else window // 2
        bound = spec.head_dim**-0.5
        projection = torch.empty(spec.heads, spec.head_dim, self.rank)
        self.projection = nn.Parameter(projection.uniform_(-bound, bound))
        self.norm_window = self.norm_window_v = HeadsLayerNorm(spec.heads, spec.head_dim)
        self.norm_summary = self.norm_summary_v = HeadsLayerNorm(spec.heads, spec.head_dim)
        if spec.value_dim != spec.head_dim:
            self.norm_window_v = HeadsLayerNorm(spec.heads, spec.value_dim)
            self.norm_summary_v = HeadsLayerNorm(spec.heads, spec.value_dim)

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype, (k, v, key_mask) = v.dtype, self._wide(k, v, context)
        keys, values = self.norm_window(k), self.norm_window_v(v)
        out = windowed_softmax_attention(
            q.to(k.dtype),
            keys,
            values,
            key_mask,
            before=self.before,
            after=self.after,
            segment=self.segment,
            summaries=self._summarise(k, v, key_mask)
            if self.causal
            else self._summarise(keys, values, key_mask, scored=k),
        )
        return out.to(dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax over all keys and the summaries, one by one, under a mask."""
        k, v, key_mask = self._wide(k, v, context)
        length_q, length_k = q.shape[-2], k.shape[-2]
        keys, values = [self.norm_window(k)], [self.norm_window_v(v)]
        i = torch.arange(length_q, device=q.device)[:, None] + length_k - length_q
        j = torch.arange(length_k, device=q.device)
        first = i - i % self.segment
        window = (j >= first - self.before) & (j < first + self.segment + self.after)
        valid = k.new_ones(k.shape[0], length_k, dtype=torch.bool) if key_mask is None else key_mask
        mask = visible(self.pattern, length_q, length_k, context, q.device)
        sees = [(window if mask is None else window & mask).expand(k.shape[0], 1, -1, -1)]
        size = self.chunk if self.causal else length_k
        for start in range(0, length_k - size + 1, size):
            own = slice(start, start + size)
            scores = (k[..., own, :] @ self.projection).mT
            masked = ~valid[:, None, None, own]
            # Twice: the softmax of a chunk without any valid token is NaN.
            weights = scores.masked_fill(masked, -math.inf).softmax(-1).masked_fill(masked, 0.0)
            of_keys, of_values = (k, v) if self.causal else (keys[0], values[0])
            keys.append(self.norm_summary(weights @ of_keys[..., own, :]))
            values.append(self.norm_summary_v(weights @ of_values[..., own, :]))
            column = valid[:, None, own].any(-1)[..., None, None]
            if self.causal:
                column = column & (i // size > start // size)
            sees.append(column.expand(-1, -1, length_q, self.rank))
        return exact_softmax_attention(
            q, torch.cat(keys, dim=-2), torch.cat(values, dim=-2), torch.cat(sees, dim=-1)
        )

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The last w - 1 keys and values, the summaries of chunks and the tokens after them."""
        k, v, key_mask = self._wide(k, v, context)
        length = k.shape[-2]
        if key_mask is None:
            key_mask = k.new_ones(k.shape[0], length, dtype=torch.bool)
        summaries = self._summarise(k, v, key_mask)
        assert summaries.mask is not None
        start, ended = max(0, length - self.before), length // self.chunk * self.chunk
        tensors = {
            "summary_k": summaries.keys,
            "summary_v": summaries.values,
            "summary_mask": summaries.mask,
            "k": self.norm_window(k[..., start:, :]),
            "v": self.norm_window_v(v[..., start:, :]),
            "mask": key_mask[:, start:],
            "open_k": k[..., ended:, :],
            "open_v": v[..., ended:, :],
            "open_mask": key_mask[:, ended:],
        }
        return DecodeState(length, tensors)

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Softmax over the summaries, the kept keys and the token's own; summarise a full chunk."""
        assert k_t is not None
        assert v_t is not None
        tensors, dtype = state.tensors, v_t.dtype
        k_t, v_t, _ = self._wide(k_t, v_t, None)
        own = tensors["mask"].new_ones(k_t.shape[0], 1)
        for name, keys, values in (
            ("", self.norm_window(k_t), self.norm_window_v(v_t)),
            ("open_", k_t, v_t),
        ):
            _extend(tensors, name, keys, values, own)
        out = exact_softmax_attention(
            q_t.to(k_t.dtype),
            torch.cat([tensors["summary_k"], tensors["k"]], dim=-2),
            torch.cat([tensors["summary_v"], tensors["v"]], dim=-2),
            torch.cat([tensors["summary_mask"], tensors["mask"]], dim=-1)[:, None, None, :],
        )
        _drop(tensors, "", tensors["k"].shape[-2] - self.before)
        if tensors["open_k"].shape[-2] == self.chunk:
            new = self._summarise(tensors["open_k"], tensors["open_v"], tensors["open_mask"])
            assert new.mask is not None
            _extend(tensors, "summary_", new.keys, new.values, new.mask)
            _drop(tensors, "open_", self.chunk)
        state.length += 1
        return out.to(dtype), state

    def state_size(self, length: int) -> int:
        """H (D + Dv) numbers for each kept token, summary and token of the open chunk."""
        columns = min(length, self.before) + length // self.chunk * self.rank + length % self.chunk
        return columns * self.spec.heads * (self.spec.head_dim + self.spec.value_dim)

    def flops(self, shape: AttentionShape) -> float:
        """Scores and means of the summaries, and 2 B H Lq (D + Dv) for each column of the softmax.

        Causally a query sees half of the summaries on average.
        """
        rows = shape.batch * shape.heads
        width = shape.head_dim + shape.value_dim
        columns: float = min(self.segment + self.before + self.after, shape.length_k)
        columns += shape.length_k / self.chunk * self.rank / 2 if self.causal else self.rank
        means = 2 * rows * shape.length_k * self.rank * (shape.head_dim + width)
        return means + 2 * rows * shape.length_q * columns * width

    def _wide(
        self, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values in float32 at least, and the mask."""
        dtype = torch.promote_types(v.dtype, torch.float32)
        return k.to(dtype), v.to(dtype), None if context is None else context.key_mask

    def _summarise(
        self, k: Tensor, v: Tensor, key_mask: Tensor | None, scored: Tensor | None = None
    ) -> Summaries:
        """Summaries of the keys and values, of all of them or of each full chunk.

        ``scored`` are the keys that the weights are taken from; None: ``k``.
        """
        length = k.shape[-2]
        size = self.chunk if self.causal else length
        shape = length // size, size
        whole = shape[0] * size
        scores = self.projection.to(k.dtype).mT @ (k if scored is None else scored).mT
        scores = scores[..., :whole].unflatten(-1, shape)
        mask = None
        if key_mask is not None:
            valid = key_mask[:, :whole].unflatten(-1, shape)
            some = valid.any(-1)
            scores = scores.masked_fill(~(valid | ~some[..., None])[:, None, None], -math.inf)
            mask = some.repeat_interleave(self.rank, dim=-1)
        weights = scores.softmax(-1).transpose(2, 3)
        keys, values = (
            (weights @ x[..., :whole, :].unflatten(-2, shape)).flatten(2, 3) for x in (k, v)
        )
        chunk = self.chunk if self.causal else 0
        return Summaries(
            self.norm_summary(keys), self.norm_summary_v(values), mask, chunk, self.rank
        )


def _extend(tensors: dict[str, Tensor], name: str, k: Tensor, v: Tensor, mask: Tensor) -> None:
    """Append tokens to the keys, values and mask of one list."""
    for key, new, dim in (("k", k, -2), ("v", v, -2), ("mask", mask, -1)):
        tensors[name + key] = torch.cat([tensors[name + key], new], dim=dim)


def _drop(tensors: dict[str, Tensor], name: str, count: int) -> None:
    """Remove the first tokens of one list."""
    if count > 0:
        for key, dim in (("k", -2), ("v", -2), ("mask", -1)):
            old = tensors[name + key]
            tensors[name + key] = old.narrow(dim, count, old.shape[dim] - count)
