"""L2ViT: enhanced linear attention and windows in turn (Zheng 2025, arXiv 2501.16182).

Layers 0, 2, ..: softmax attention within blocks of w tokens. Layers 1, 3, ..:

    o_i = t relu(q_i)·sum_j relu(k_j) v_j^T / max(relu(q_i)·sum_j relu(k_j), 100)
    out = o + DW(BN(GELU(DW(LN(o)))))

over the keys j that row i sees; t is one learned number a head, at first D^(-1/2). The floor of the
denominator is the paper's, for stability: rows whose weights add up to less are scaled down. The
second line is its local concentration module, of depthwise convolutions DW, 7 wide, that brings
back what linear attention spreads; norms are over all heads of a token.

What differs from the authors' code, which is for images:

* one dimension: blocks of 64 tokens for 7 x 7, 7 taps for 7 x 7. What fills up the last block is
  not there, where theirs are zeros that softmax sees;
* the module is a layer of its own there, on the residual stream; here it is on what attention
  gives;
* their position encodings, convolutions before each layer, are the backbone's business;
* causally (adapted) a token sees those of its block up to itself, sums are prefix sums, the
  convolutions reach back, and the norm between them is of each token: the statistics of a batch
  would show later tokens;
* in cross attention there are neither blocks nor places to convolve over: every layer is the linear
  attention alone.

Batch statistics are those of valid tokens. Blocks and taps are of positions: those of the context,
or else places in the sequence. Causally the convolutions read what attention gave to the tokens
before, whose queries a decoder does not keep: there is no step, and layers 1, 3, .. refuse fewer
queries than keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.features import relu_features, work_dtype
from attentions.shared.masks import visible
from attentions.shared.positions import at_positions
from attentions.shared.prefix_sums import linear_attention, linear_attention_flops
from attentions.softmax import SoftmaxAttention
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_TAPS = 7
_EPS, _MOMENTUM = 1e-5, 0.1


class LocalConcentration(nn.Module):
    """Two depthwise convolutions of tokens (B, L, E) with norms before and between them."""

    mean: Tensor
    variance: Tensor
    """(E,) of the tokens between the convolutions, running over training"""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.norm = nn.LayerNorm(width)
        self.between = nn.LayerNorm(width)  # its weights are the batch norm's too
        bound = _TAPS**-0.5
        self.taps = nn.Parameter(torch.empty(2, width, _TAPS).uniform_(-bound, bound))
        self.biases = nn.Parameter(torch.empty(2, width).uniform_(-bound, bound))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Of tokens in float32 at least; masked ones (B, L) are zeros to the convolutions."""
        weight, bias = self.norm.weight.to(x.dtype), self.norm.bias.to(x.dtype)
        x = F.layer_norm(x, x.shape[-1:], weight, bias, _EPS)
        x = F.gelu(self._convolved(x, 0, mask))
        x = self.normed(x, mask, update=self.training)
        return self._convolved(x, 1, mask)

    def plainly(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The same with convolutions tap by tap; counts nothing into the running statistics."""
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, keepdim=True) + _EPS).sqrt()
        x = self._shifted(x * self.norm.weight.to(x.dtype) + self.norm.bias.to(x.dtype), 0, mask)
        x = x * (1 + (x / 2**0.5).erf()) / 2
        return self._shifted(self.normed(x, mask, update=False), 1, mask)

    def normed(self, x: Tensor, mask: Tensor | None, *, update: bool) -> Tensor:
        """The norm between the convolutions: of the batch, or where causal of each token."""
        weight, bias = self.between.weight.to(x.dtype), self.between.bias.to(x.dtype)
        if self.causal:
            return F.layer_norm(x, x.shape[-1:], weight, bias, _EPS)
        mean, variance = self.mean.to(x.dtype), self.variance.to(x.dtype)
        valid = x.new_ones(*x.shape[:2], 1) if mask is None else mask[..., None].to(x.dtype)
        count = valid.sum()
        if self.training and count > 0:
            mean = (x * valid).sum((0, 1)) / count
            variance = ((x - mean).square() * valid).sum((0, 1)) / count
            if update:
                unbiased = variance.detach() * count / (count - 1).clamp(min=1)
                for name, new in (("mean", mean.detach()), ("variance", unbiased)):
                    old = getattr(self, name)
                    setattr(self, name, torch.lerp(old, new.to(old.dtype), _MOMENTUM))
        return (x - mean) * (variance + _EPS).rsqrt() * weight + bias

    def _convolved(self, x: Tensor, which: int, mask: Tensor | None) -> Tensor:
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
        taps = self.taps[which].to(x.dtype)[:, None]
        x = F.pad(x.mT, self._reach())
        return F.conv1d(x, taps, self.biases[which].to(x.dtype), groups=x.shape[1]).mT

    def _shifted(self, x: Tensor, which: int, mask: Tensor | None) -> Tensor:
        if mask is not None:
            x = x * mask[..., None]
        length = x.shape[1]
        x = F.pad(x, (0, 0, *self._reach()))
        taps = self.taps[which].to(x.dtype)
        windows = [x[:, tap : tap + length] * taps[:, tap] for tap in range(_TAPS)]
        return torch.stack(windows).sum(0) + self.biases[which].to(x.dtype)

    def _reach(self) -> tuple[int, int]:
        """Tokens before and after a tap's own."""
        return (_TAPS - 1, 0) if self.causal else (_TAPS // 2, _TAPS // 2)


@register_attention(
    AttentionInfo(
        id="l2vit",
        family=Family.HYBRID,
        title="L2ViT (windows and enhanced linear attention)",
        formula="layers 0, 2, ..: softmax in blocks of w; 1, 3, ..: o + DW(BN(GELU(DW(LN(o))))), "
        "o_i = t relu(q_i)·sum_j relu(k_j) v_j^T / max(relu(q_i)·sum_j relu(k_j), 100)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L (w + D) D",
        memory="L (w + D)",
        paper="Zheng, The Linear Attention Resurrection in Vision Transformer",
        year=2025,
        url="https://arxiv.org/abs/2501.16182",
        options=(
            Option("window", 64, "w: tokens of a block", positive=True),
            Option("floor", 100.0, "least denominator of linear attention", least=0),
            Option(
                "form",
                "alternate",
                "which layers there are in self attention",
                choices=("alternate", "window", "linear"),
            ),
        ),
    )
)
class L2ViT(Attention):
    """Softmax within blocks, or linear attention and its local concentration."""

    def __init__(
        self,
        spec: AttentionSpec,
        window: int = 64,
        floor: float = 100.0,
        form: str = "alternate",
    ) -> None:
        super().__init__(spec)
        self.window, self.floor = window, floor
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        windowed = form == "window" or (form == "alternate" and spec.layer_index % 2 == 0)
        self.blocks: SoftmaxAttention | None = None
        self.local: LocalConcentration | None = None
        if windowed and not spec.pattern.cross:
            self.blocks = SoftmaxAttention(spec)
            return
        self.factor = nn.Parameter(torch.full((spec.heads, 1, 1), spec.head_dim**-0.5))
        if not spec.pattern.cross:
            self.local = LocalConcentration(spec.heads * spec.value_dim, self.causal)

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; sums are kept in float32 at least.

        Raises:
            NotImplementedError: a layer with convolutions has fewer queries than keys.
        """
        if self.pattern.cross:  # places play no part
            return self._linear(q, k, v).to(v.dtype)
        out: Tensor = self._self(q, k, v, context)
        return out

    @at_positions
    def _self(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        mask = None if context is None else context.key_mask
        if self.blocks is not None:
            return self._within_blocks(self.blocks, q, k, v, mask)
        self._require_every_query(q, k)
        out = self._linear(q, k, v)
        return self._concentrated(out, mask, plainly=False).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights."""
        if self.pattern.cross:
            return self._linear_plainly(q, k, v, context)
        out: Tensor = self._self_plainly(q, k, v, context)
        return out

    @at_positions
    def _self_plainly(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        if self.blocks is None:
            self._require_every_query(q, k)
            out = self._linear_plainly(q, k, v, context)
            mask = None if context is None else context.key_mask
            return self._concentrated(out, mask, plainly=True)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        block = torch.arange(k.shape[-2], device=q.device) // self.window
        own = block[k.shape[-2] - q.shape[-2] :, None] == block
        return exact_softmax_attention(q, k, v, own if mask is None else own & mask)

    def flops(self, shape: AttentionShape) -> float:
        """Of the blocks, or of the sums over keys and the convolutions."""
        rows = shape.batch * shape.heads * shape.length_q
        if self.blocks is not None:
            width = min(self.window, shape.length_k)
            return 2 * rows * width * (shape.head_dim + shape.value_dim)
        total = linear_attention_flops(shape, shape.head_dim, causal=self.causal)
        return total if self.local is None else total + 4 * rows * _TAPS * shape.value_dim

    def _linear(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Linear attention under the floor; masked keys are zeros, and so are their features."""
        fq, fk = relu_features(q), relu_features(k)
        values = v.to(fk.dtype)
        means = linear_attention(fq, fk, values, causal=self.causal, floor=self.floor)[0]
        return self.factor.to(means.dtype) * means

    def _linear_plainly(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        weights = q.clamp(min=0) @ k.clamp(min=0).mT
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        weights = weights if mask is None else weights * mask
        total = weights.sum(-1, keepdim=True)
        bounded = total.clamp(min=self.floor).masked_fill(total == 0, 1.0)
        return self.factor.to(q.dtype) * (weights @ v) / bounded

    def _concentrated(self, out: Tensor, mask: Tensor | None, *, plainly: bool) -> Tensor:
        """What attention gives, (B, H, L, Dv), and its local concentration; zero where masked."""
        assert self.local is not None
        module = self.local.plainly if plainly else self.local
        tokens = out.transpose(1, 2).flatten(2)
        local = module(tokens, mask).unflatten(2, (out.shape[1], -1)).transpose(1, 2)
        out = out + local
        return out if mask is None else out.masked_fill(~mask[:, None, :, None], 0.0)

    def _within_blocks(
        self, softmax: SoftmaxAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Softmax attention with the blocks in the place of the batch."""
        batch, length_q, length_k = len(q), q.shape[-2], k.shape[-2]
        dtype, wide = v.dtype, work_dtype(v)
        lag = length_k - length_q
        start = lag - lag % self.window
        # Zeros stand in for the queries before the first one in its block.
        q = F.pad(q, (0, 0, lag - start, 0))
        k, v, length = k[..., start:, :], v[..., start:, :], length_k - start
        size = max(1, min(self.window, length))
        padding = -length % size
        mask = None if mask is None else mask[:, start:]
        if padding:
            q, k, v = (F.pad(x, (0, 0, 0, padding)) for x in (q, k, v))
            mask = q.new_ones(batch, length, dtype=torch.bool) if mask is None else mask
            mask = F.pad(mask, (0, padding))

        def blocks(x: Tensor) -> Tensor:
            return x.to(wide).unflatten(2, (-1, size)).transpose(1, 2).flatten(0, 1)

        context = None
        if mask is not None:
            context = AttentionContext(key_mask=mask.reshape(-1, size))
        out = softmax.fused(blocks(q), blocks(k), blocks(v), context, q.shape[-1] ** -0.5)
        out = out.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
        return out[..., lag - start : length, :].to(dtype)

    def _require_every_query(self, q: Tensor, k: Tensor) -> None:
        if q.shape[-2] != k.shape[-2]:
            raise NotImplementedError(
                "the convolutions of l2vit read the outputs of the tokens before: it takes as many "
                "queries as keys"
            )
