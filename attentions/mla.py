"""Multi-head latent attention: keys and values of all heads from one short vector of a token
(DeepSeek-V2: DeepSeek-AI 2024, arXiv 2405.04434).

    c_j = RMSNorm(W_dkv y_j),   k_j = [W_uk c_j, R_j W_kr y_j],   v_j = W_uv c_j
    o_i = sum_j softmax_j([q^C_i, R_i q^R_i]·k_j / sqrt(D)) v_j

over the keys j that row i sees; y is the layer's input at the keys, R_j the rotation of place j,
W_uk and W_uv are of each head, c of r numbers and the rotated key of d_r numbers are the same for
all heads and all that is cached. As W_uk c·q = c·(W_ukᵀ q), a step attends to the latents as they
are and never makes a key or a value.

What stands for what here, and why every pattern is adapted:

* keys and values are projected from the layer's input, as published; the backbone's own keys and
  values are not read, and their projections stand idle;
* queries are the backbone's, their last d_r channels being q^R: those of DeepSeek-V2-Lite, which
  has no latent of queries. A head's D channels are content and rotation together, and values are as
  wide as the backbone has them, where the authors add 64 rotated channels to 128 of content;
* r is an eighth of the layer's width at first, which keeps the added parameters within a tenth of a
  backbone's; DeepSeek-V2 has a tenth (512 of 5120);
* in cross attention queries and keys have no places in common, and nothing is rotated: all channels
  are content. Rotations are for self attention, at the positions of the context.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.layer_inputs import key_input
from attentions.shared.masks import visible
from attentions.shared.rotary import rotated
from attentions.softmax import SoftmaxAttention, softmax_flops
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

_EPS = 1e-6


@register_attention(
    AttentionInfo(
        id="mla",
        family=Family.SOFTMAX,
        title="Multi-head latent attention (MLA)",
        formula="o_i = softmax_j(q_i·[W_uk c_j, R_j W_kr y_j] / sqrt(D)) W_uv c_j, "
        "c_j = RMSNorm(W_dkv y_j)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L^2 D",
        memory="L",
        paper="DeepSeek-AI, DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts "
        "Language Model",
        year=2024,
        url="https://arxiv.org/abs/2405.04434",
        options=(
            Option("latent", 0, "r, numbers of c; 0: an eighth of the layer's width", least=0),
            Option(
                "rotary",
                0.33,
                "share of a head's channels that are rotated by place, in self attention",
                least=0,
                most=1,
            ),
        ),
    )
)
class MultiHeadLatentAttention(SoftmaxAttention):
    """Softmax attention to keys and values of a latent; needs the keys' layer input."""

    def __init__(self, spec: AttentionSpec, latent: int = 0, rotary: float = 0.33) -> None:
        super().__init__(spec)
        width = spec.embed_dim or spec.heads * spec.head_dim
        self.latent = latent or max(1, width // 8)
        pairs = 0 if spec.pattern.cross else round(rotary * spec.head_dim / 2)
        self.turning = 2 * min(pairs, (spec.head_dim - 1) // 2)
        """d_r, even, with a channel of content left"""
        content = spec.heads * (spec.head_dim - self.turning)
        self.down = nn.Linear(width, self.latent, bias=False)
        self.norm = nn.Parameter(torch.ones(self.latent))
        self.up_k = nn.Linear(self.latent, content, bias=False)
        self.up_v = nn.Linear(self.latent, spec.heads * spec.value_dim, bias=False)
        self.turned = nn.Linear(width, self.turning, bias=False) if self.turning else None

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least, without k and v.

        Raises:
            ValueError: the context has no ``key_input`` to project keys and values from.
        """
        wide = torch.promote_types(v.dtype, torch.float32)
        places = _places(k, context)
        keys, values = self._heads(*self._cached(context, places, wide))
        queries = self._queries(q.to(wide), places[..., k.shape[-2] - q.shape[-2] :])
        return self.fused(queries, keys, values, context, q.shape[-1] ** -0.5).to(v.dtype)

    @without_autocast
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Keys and values of every head from the latents, and softmax written out."""
        places = _places(k, context)
        latent, turned = self._cached(context, places, q.dtype)
        up_k, up_v = self._ups(q.dtype)
        keys = [torch.cat([latent @ up.mT, turned], dim=-1) for up in up_k]
        values = [latent @ up.mT for up in up_v]
        queries = self._queries(q, places[..., k.shape[-2] - q.shape[-2] :])
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        out = exact_softmax_attention(queries, torch.stack(keys, 1), torch.stack(values, 1), mask)
        return out.to(v.dtype)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Latents (B, L, r), rotated keys (B, L, d_r), and the place of the next token."""
        wide = torch.promote_types(v.dtype, torch.float32)
        places = _places(k, context)
        latent, turned = self._cached(context, places, wide)
        after = places.amax(-1, keepdim=True) + 1 if k.shape[-2] else places.new_zeros(1)
        state = DecodeState(k.shape[-2], {"latent": latent, "turned": turned, "next": after})
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
        """Append the token's latent and rotated key, if it has a key, and attend to latents."""
        tensors = state.tensors
        latent = tensors["latent"]
        place = tensors["next"]
        if k_t is not None and v_t is not None:
            if context is not None and context.key_positions is not None:
                place = context.key_positions
            new = self._cached(context, place, latent.dtype)
            for name, x in zip(("latent", "turned"), new, strict=True):
                tensors[name] = torch.cat([tensors[name], x], dim=-2)
            tensors["next"] = place + 1
            if "key_mask" in tensors:
                tensors["key_mask"] = F.pad(tensors["key_mask"], (0, 1), value=True)
            state.length += 1
        out = self._read(q_t.to(latent.dtype), place, tensors)
        return out.to(q_t.dtype if v_t is None else v_t.dtype), state

    def state_size(self, length: int) -> int:
        """L (r + d_r) numbers, whatever the number of heads."""
        return length * (self.latent + self.turning)

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, and of the projections down and up."""
        tokens = shape.batch * shape.length_k
        down = self.down.in_features * (self.latent + self.turning)
        up = self.latent * (self.up_k.out_features + self.up_v.out_features)
        causal = self.pattern is Pattern.CAUSAL_SELF
        return softmax_flops(shape, causal) + 2 * tokens * (down + up)

    def _read(self, q: Tensor, place: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """(B, H, 1, Dv) attention of a query (B, H, 1, D) to what is cached."""
        latent, turned = tensors["latent"][:, None], tensors["turned"][:, None]
        up_k, up_v = self._ups(q.dtype)
        queries = self._queries(q, place)
        own, turning = queries.split((q.shape[-1] - self.turning, self.turning), dim=-1)
        scores = (own @ up_k) @ latent.mT + turning @ turned.mT
        scores = scores * q.shape[-1] ** -0.5
        mask = tensors.get("key_mask")
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights.masked_fill(~mask[:, None, None], 0.0)
        return (weights @ latent) @ up_v.mT

    def _cached(
        self, context: AttentionContext | None, places: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Latents (B, L, r) and rotated keys (B, L, d_r) of the layer's input."""
        y = key_input(context, "mla", "keys and values").to(dtype)
        latent = F.rms_norm(
            F.linear(y, self.down.weight.to(dtype)), (self.latent,), self.norm.to(dtype), _EPS
        )
        if self.turned is None:
            return latent, y[..., :0]
        return latent, _rotated(F.linear(y, self.turned.weight.to(dtype)), places)

    def _heads(self, latent: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, L, D) keys and (B, H, L, Dv) values of what is cached."""
        up_k, up_v = self._ups(latent.dtype)
        keys, values = (latent[:, None] @ up.mT for up in (up_k, up_v))
        return torch.cat([keys, turned[:, None].expand(-1, len(up_k), -1, -1)], dim=-1), values

    def _queries(self, q: Tensor, places: Tensor) -> Tensor:
        """(B, H, L, D) with the last d_r channels rotated."""
        if not self.turning:
            return q
        content, turning = q.split((q.shape[-1] - self.turning, self.turning), dim=-1)
        return torch.cat([content, _rotated(turning, places)], dim=-1)

    def _ups(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """W_uk (H, D - d_r, r) and W_uv (H, Dv, r)."""
        weights = (layer.weight.to(dtype) for layer in (self.up_k, self.up_v))
        up_k, up_v = (w.unflatten(0, (self.spec.heads, -1)) for w in weights)
        return up_k, up_v


def _places(k: Tensor, context: AttentionContext | None) -> Tensor:
    """(L,) or (B, L) positions of keys."""
    if context is not None and context.key_positions is not None:
        return context.key_positions
    return torch.arange(k.shape[-2], device=k.device)


def _rotated(x: Tensor, places: Tensor) -> Tensor:
    """Vectors (B, ..., L, d) turned by places (L,) or (B, L)."""
    if places.ndim == 1:
        return rotated(x, places)
    return torch.stack([rotated(*row) for row in zip(x, places.expand(len(x), -1), strict=True)])
