"""PaTH attention: between a key and a query stand reflections of all tokens on the way (Yang et al.
2025, arXiv 2505.16381).

    o_i = sum_j softmax_j(q_iᵀ H_i H_(i-1) ... H_(j+1) k_j / sqrt(D)) v_j,   j <= i
    H_s = I - beta_s w_s w_sᵀ,   beta_s = 2 sigmoid(u·x_s + b),
    w_s = normalised SiLU(conv(W x)_s)

x is the layer's input, W of low rank, conv a depthwise causal convolution of 3 taps, w of length 1
and of each head, as beta is. A rotary code turns by an angle for every token passed; here what a
token does to the scores that pass it is its own: beta 1 takes a direction away, 2 reflects it, and
0 lets pass. With all beta zero it is softmax attention.

Within a chunk of c tokens, products of such matrices are the identity less a sum of outer products
(the UT transform). With B = diag(beta) W for the rows W of a chunk, T = (I + tril(B Wᵀ, -1))^-1:

    scores inside     tril(Q Kᵀ) - tril(Q Wᵀ) T tril(B Kᵀ, -1)
    queries at its start   Q - tril(Q Wᵀ) T B
    keys at its end        K - (T tril(B Kᵀ, -1))ᵀ W
    across it              I - Wᵀ T B

Queries of a chunk are carried back through the chunks before, and meet the keys at the end of each.
That is done for one chunk of queries after the other and again in the backward pass, so that there
is never a matrix between all tokens. A step carries all cached keys through its token's matrix.

* A masked token lets pass: its beta is zero, and so is its place in the convolution.
* Left out is the authors' variant with forget gates besides, and norms of queries and keys. W has
  rank 32 there; here at most that, and an eighth of the layer's width, so that a narrow layer keeps
  to its budget.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.layer_inputs import key_input
from attentions.shared.masks import causal_mask
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.recompute import recomputed
from attentions.softmax import softmax_flops
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

_CHUNK = 64
_TAPS = 3
_EPS = 1e-6
"""Added to the square of the length of w"""
_RANK = 32


@register_attention(
    AttentionInfo(
        id="path",
        family=Family.POSITIONAL,
        title="PaTH attention",
        formula="o_i = softmax_j(q_iᵀ prod_(j < s <= i) (I - beta_s w_s w_sᵀ) k_j / sqrt(D)) v_j",
        patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL},
        absent={
            Pattern.NONCAUSAL_SELF: "what stands between a key and a query are the tokens from one "
            "to the other, read in the order of a causal model",
            Pattern.NONCAUSAL_CROSS: "no tokens lie between a source and what reads it",
            Pattern.CAUSAL_CROSS: "no tokens lie between a source and what reads it",
        },
        time="L^2 (D + D^2 / c)",
        memory="L (D + D^2 / c)",
        paper="Yang et al., PaTH Attention: Position Encoding via Accumulating Householder "
        "Transformations",
        year=2025,
        url="https://arxiv.org/abs/2505.16381",
        options=(
            Option("rank", 0, "of W; 0: an eighth of the layer's width, at most 32", least=0),
        ),
        presets={"published": {"rank": 32}},
    )
)
class PathAttention(Attention):
    """Softmax attention through reflections; needs the layer's input in its context."""

    def __init__(self, spec: AttentionSpec, rank: int = 0) -> None:
        super().__init__(spec)
        width, channels = spec.embed_dim or spec.heads * spec.head_dim, spec.heads * spec.head_dim
        rank = rank or max(1, min(_RANK, width // 8))
        self.narrow = nn.Linear(width, rank, bias=False)
        self.widen = nn.Linear(rank, channels, bias=False)
        bound = _TAPS**-0.5  # as convolutions begin
        self.taps = nn.Parameter(torch.empty(channels, _TAPS).uniform_(-bound, bound))
        self.beta = nn.Linear(width, spec.heads)

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Raises:
            ValueError: the context has no ``key_input`` to project w and beta from.
        """
        key_input(context, "path", "reflections")
        out: Tensor = self._chunked(q, k, v, context)
        return out

    @at_positions
    def _chunked(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Chunk after chunk of queries."""
        dtype, length, lag = v.dtype, k.shape[-2], k.shape[-2] - q.shape[-2]
        wide = torch.promote_types(dtype, torch.float32)
        w, beta = self._reflections(context, wide)
        q = F.pad(q.to(wide), (0, 0, lag, 0))
        parts = _parts(q, k.to(wide), w, beta)
        values = v.to(wide)
        mask = None if context is None else context.key_mask
        outputs = []
        for chunk in range(lag // _CHUNK, parts.queries.shape[2]):
            last = min((chunk + 1) * _CHUNK, length)
            block = partial(_attend, mask=None if mask is None else mask[:, :last])
            outputs.append(
                recomputed(
                    block,
                    parts.inside[:, :, chunk, : last - chunk * _CHUNK, : last - chunk * _CHUNK],
                    parts.queries[:, :, chunk, : last - chunk * _CHUNK],
                    parts.keys[:, :, :chunk],
                    parts.across[:, :, :chunk],
                    values[..., :last, :],
                )
            )
        return torch.cat(outputs, dim=-2)[..., lag % _CHUNK :, :].to(dtype)

    @without_autocast
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Token by token: all keys so far go through its matrix, and are read."""
        out: Tensor = self._token_by_token(q, k, v, context)
        return out

    @at_positions
    def _token_by_token(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        w, beta = self._reflections(context, q.dtype)
        lag, past, rows = k.shape[-2] - q.shape[-2], k[..., :0, :], []
        for i in range(k.shape[-2]):
            own = slice(i, i + 1)
            past = past - beta[..., own, :] * (past @ w[..., own, :].mT) * w[..., own, :]
            past = torch.cat([past, k[..., own, :]], dim=-2)
            if i >= lag:
                scores = q[..., i - lag : i - lag + 1, :] @ past.mT
                rows.append(F.pad(scores, (0, k.shape[-2] - 1 - i)))
        scores = torch.cat(rows, dim=-2) * q.shape[-1] ** -0.5
        hidden = _hidden(scores, None if context is None else context.key_mask)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0.0)
        return weights.to(v.dtype) @ v

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keys as they are behind the prompt, values, and the last inputs of the convolution."""
        key_input(context, "path", "reflections")
        state: DecodeState = self._prompt(k, v, context)
        return state

    @prompt_at_positions
    def _prompt(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        length = k.shape[-2]
        wide = torch.promote_types(v.dtype, torch.float32)
        w, beta = self._reflections(context, wide)
        past = k[..., :0, :].to(wide)
        if length:
            parts = _parts(k.to(wide), k.to(wide), w, beta)
            for keys, across in zip(parts.keys.unbind(2), parts.across.unbind(2), strict=True):
                past = torch.cat([past - past @ across.mT, keys], dim=-2)
        inputs = F.pad(self._projected(context, wide), (0, 0, _TAPS - 1, 0))[:, length:]
        state = DecodeState(length, {"k": past[..., :length, :], "v": v, "inputs": inputs})
        if context is not None and context.key_mask is not None:
            state.tensors["key_mask"] = context.key_mask
        return state

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Carry the keys through the token's matrix, append its own, attend.

        Raises:
            ValueError: the token has no key, or its context no ``key_input``.
        """
        tensors = state.tensors
        if k_t is None or v_t is None:
            raise ValueError("path is of causal self attention, where every token has a key")
        past = tensors["k"]
        inputs = torch.cat([tensors["inputs"], self._projected(context, past.dtype)], dim=1)
        w, beta = self._directions(inputs), self._strengths(context, past.dtype)
        past = past - beta * (past @ w.mT) * w
        tensors["k"] = torch.cat([past, k_t.to(past.dtype)], dim=-2)
        tensors["v"] = torch.cat([tensors["v"], v_t], dim=-2)
        tensors["inputs"] = inputs[:, 1:]
        if "key_mask" in tensors:
            tensors["key_mask"] = F.pad(tensors["key_mask"], (0, 1), value=True)
        state.length += 1
        scores = q_t.to(past.dtype) @ tensors["k"].mT * q_t.shape[-1] ** -0.5
        if "key_mask" in tensors:
            scores = scores.masked_fill(~tensors["key_mask"][:, None, None], -torch.inf)
        return (scores.softmax(-1) @ tensors["v"].to(past.dtype)).to(v_t.dtype), state

    def state_size(self, length: int) -> int:
        """2 H L D numbers, and two inputs of the convolution."""
        width = self.spec.heads * self.spec.head_dim
        return 2 * width * length + (_TAPS - 1) * width

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, of carrying queries back, and of the projections."""
        rows, dim = shape.batch * shape.heads, shape.head_dim
        carried = rows * shape.length_q * shape.length_k / _CHUNK * dim**2
        chunks = rows * shape.length_k * _CHUNK * 8 * dim
        made = self.narrow.weight.numel() + self.widen.weight.numel() + self.beta.weight.numel()
        return (
            softmax_flops(shape, causal=True)
            + carried
            + chunks
            + (2 * shape.batch * shape.length_k * (made + self.taps.numel()))
        )

    def _reflections(
        self, context: AttentionContext | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Directions w (B, H, L, D) and beta (B, H, L, 1)."""
        inputs = F.pad(self._projected(context, dtype), (0, 0, _TAPS - 1, 0))
        beta = self._strengths(context, dtype)
        if context is not None and context.key_mask is not None:
            beta = beta.masked_fill(~context.key_mask[:, None, :, None], 0.0)
        return self._directions(inputs), beta

    def _projected(self, context: AttentionContext | None, dtype: torch.dtype) -> Tensor:
        """(B, L, H D) what is convolved."""
        x = key_input(context, "path", "reflections").to(dtype)
        return F.linear(F.linear(x, self.narrow.weight.to(dtype)), self.widen.weight.to(dtype))

    def _strengths(self, context: AttentionContext | None, dtype: torch.dtype) -> Tensor:
        """(B, H, L, 1) beta of tokens that are there."""
        x = key_input(context, "path", "reflections").to(dtype)
        beta = F.linear(x, self.beta.weight.to(dtype), self.beta.bias.to(dtype))
        return 2 * beta.sigmoid().mT[..., None]

    def _directions(self, inputs: Tensor) -> Tensor:
        """(B, H, L, D) w, from two inputs more than there are tokens."""
        length, taps = inputs.shape[1] - _TAPS + 1, self.taps.to(inputs.dtype)
        mixed = sum(taps[:, n] * inputs[:, n : n + length] for n in range(_TAPS))
        w = F.silu(torch.as_tensor(mixed)).unflatten(-1, (self.spec.heads, -1)).transpose(1, 2)
        return w * (w.square().sum(-1, keepdim=True) + _EPS).rsqrt()


class _Parts(NamedTuple):
    """What chunks are to each other; (B, H, chunks, ...) each."""

    inside: Tensor
    """(c, c) scores of a chunk's queries and keys, of which the lower half counts"""
    queries: Tensor
    """(c, D) at the chunk's start"""
    keys: Tensor
    """(c, D) at its end"""
    across: Tensor
    """(D, D), the identity less the chunk's matrix"""


def _parts(q: Tensor, k: Tensor, w: Tensor, beta: Tensor) -> _Parts:
    """Of tokens (B, H, L, D); behind the last there are zeros, which let pass."""
    padding = (0, 0, 0, -k.shape[-2] % _CHUNK)
    q, k, w, b = (F.pad(x, padding).unflatten(-2, (-1, _CHUNK)) for x in (q, k, w, beta * w))
    system = (b @ w.mT).tril(-1)  # the solver takes the diagonal for ones
    right = torch.cat([(b @ k.mT).tril(-1), b], dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    of_keys, of_all = solved.split((_CHUNK, k.shape[-1]), dim=-1)
    passed = (q @ w.mT).tril()
    return _Parts(
        q @ k.mT - passed @ of_keys, q - passed @ of_all, k - of_keys.mT @ w, w.mT @ of_all
    )


def _attend(
    inside: Tensor, q: Tensor, keys: Tensor, across: Tensor, v: Tensor, mask: Tensor | None
) -> Tensor:
    """(B, H, m, Dv) outputs of a chunk's m queries, the last of which stands at the last key.

    Args:
        inside: (B, H, m, m) scores within the chunk. q: (B, H, m, D) at its start.
        keys: (B, H, n, c, D) of the chunks before. across: (B, H, n, D, D).
        v: (B, H, n c + m, Dv). mask: (B, n c + m) bool, or None.
    """
    scale, carried = q.shape[-1] ** -0.5, []
    for matrix in reversed(across.unbind(2)):
        carried.append(q)
        q = q - q @ matrix
    scores = inside
    if carried:
        before = torch.stack(carried[::-1], dim=2) @ keys.mT
        scores = torch.cat([before.transpose(2, 3).flatten(3), inside], dim=-1)
    hidden = _hidden(scores, mask)
    return (scores * scale).masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0.0) @ v


def _hidden(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Whether the last queries of a sequence do not see a key, broadcastable to (B, H, Lq, Lk)."""
    seen = causal_mask(scores.shape[-2], scores.shape[-1], scores.device)
    return ~(seen if mask is None else seen & mask[:, None, None, :])
