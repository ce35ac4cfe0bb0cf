"""A layer for models of one's own: `torch.nn.MultiheadAttention` with any attention inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab.attention_context import AttentionContext
from cab.attention_contract import Attention
from cab.maps import map_of
from cab.patterns import Pattern
from cab.standalone import Named, build_standalone

__all__ = ["MultiheadAttention"]


class MultiheadAttention(nn.Module):
    """Projections around an attention of the registry, with the signature, the batch conventions
    and the parameter names of `torch.nn.MultiheadAttention`, whose weights it loads.

    With ``attention="softmax"`` it is that module. What differs: the pattern is chosen when it is
    built, since an entry may have parameters of its own for it; ``need_weights`` is False by
    default, as most entries have no map; and what acts on the weights of a softmax is refused
    (dropout of weights, additive masks, ``add_bias_kv``, ``add_zero_attn``).
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        attention: Named = "softmax",
        pattern: str | Pattern = Pattern.NONCAUSAL_SELF,
        preset: str = "",
        **options: Any,
    ) -> None:
        """Build projections and attention.

        Args:
            embed_dim: width E of queries and outputs.
            num_heads: heads, which divide E.
            dropout: must be 0: there are no weights to drop.
            bias: of the four projections.
            add_bias_kv: must be False.
            add_zero_attn: must be False.
            kdim: width of the keys' source; default: E.
            vdim: width of the values' source; default: E.
            batch_first: whether tensors are (B, L, E) and not (L, B, E).
            device: of the parameters.
            dtype: of the parameters.
            attention: see `cab.attention`.
            pattern: likewise; a self pattern is called with one tensor three times.
            preset: of the entry.
            options: of the entry, and ``max_length``, ``layer_index``, ``layers``.

        Raises:
            ValueError: sizes do not fit, or an argument acts on weights.
            UsageError and its kinds: as `cab.attention`.
        """
        super().__init__()
        for name, given in {
            "dropout": dropout, "add_bias_kv": add_bias_kv, "add_zero_attn": add_zero_attn,
        }.items():  # fmt: skip
            if given:
                raise ValueError(f"{name}={given}: it acts on softmax weights, which few entries "
                                 f"have; leave it out")  # fmt: skip
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is no multiple of num_heads {num_heads}")
        self.in_proj_weight: nn.Parameter | None
        self.q_proj_weight: nn.Parameter | None
        self.k_proj_weight: nn.Parameter | None
        self.v_proj_weight: nn.Parameter | None
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.head_dim = embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.batch_first = batch_first
        self.pattern = Pattern.parse(pattern)
        if not self.pattern.cross and not self.kdim == self.vdim == embed_dim:
            raise ValueError(
                f"kdim {self.kdim} and vdim {self.vdim} with pattern {self.pattern.value}: self "
                "attention has one input"
            )
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        if self._one_width:
            self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim, **made))
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(name, None)
        else:
            widths = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
            for name, width in widths.items():
                weight = nn.Parameter(torch.empty(embed_dim, width, **made))
                self.register_parameter(f"{name}_proj_weight", weight)
            self.register_parameter("in_proj_weight", None)
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim, **made)) if bias else None
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, **made)
        place = {"embed_dim": embed_dim}
        self.attention: Attention = build_standalone(
            attention, self.pattern, num_heads, self.head_dim, preset, place | options
        ).to(device=device, dtype=dtype)
        self.reset_parameters()

    @property
    def _one_width(self) -> bool:
        return self.kdim == self.vdim == self.embed_dim

    def reset_parameters(self) -> None:
        """Draw the projections as torch does; the attention keeps what it was built with."""
        weights = (
            [self.in_proj_weight]
            if self._one_width
            else [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        )
        for weight in weights:
            assert weight is not None
            nn.init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
            assert self.out_proj.bias is not None
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: (Lq, B, E), (B, Lq, E) with ``batch_first``, or (Lq, E) without a batch.
            key: likewise with Lk and ``kdim``.
            value: likewise with Lk and ``vdim``.
            key_padding_mask: (B, Lk) or (Lk,), True (or -inf) where a key is padding.
            need_weights: whether the attention map is asked for; see Raises.
            attn_mask: None, or the causal mask where the pattern is causal self attention, in
                torch's forms: (L, L) True or -inf above the diagonal.
            average_attn_weights: whether the map is averaged over heads.
            is_causal: what torch takes as a hint; must agree with the pattern.

        Returns:
            The output in the query's layout, and None, or the map (B, Lq, Lk), with a heads axis
            (B, H, Lq, Lk) if it is not averaged.

        Raises:
            ValueError: shapes or masks do not fit the pattern.
            NotImplementedError: a map is asked for and the mechanism has none (its output is not a
                matrix times the values).
        """
        batched = query.ndim == 3
        if not query.ndim == key.ndim == value.ndim or query.ndim not in (2, 3):
            raise ValueError(
                f"query, key and value have {query.ndim}, {key.ndim} and {value.ndim} dimensions; "
                "give all three with a batch (3) or without (2)"
            )
        if not self.pattern.cross and not (query is key is value):
            raise ValueError(
                f"built for {self.pattern.value}: give one tensor as query, key and value, or "
                "build it with pattern='noncausal-cross'"
            )
        self._require_mask(attn_mask, is_causal, query, key)
        x, source, content = (self._rows_first(t, batched) for t in (query, key, value))
        q, k, v = self._projected(x, source, content)
        mask = self._key_mask(key_padding_mask, len(x), k.shape[-2])
        context = AttentionContext(
            query_mask=None if self.pattern.cross else mask,
            key_mask=mask,
            query_input=x,
            key_input=source if source.shape[-1] == self.embed_dim else None,
        )
        out = self.attention(q, k, v, context)
        weights = None
        if need_weights:
            weights = map_of(lambda values: self.attention(q, k, values, context), v)
            if weights is None:
                raise NotImplementedError(
                    f"{self.attention.info.id} has no attention map: its output is not a matrix "
                    "times the values; call with need_weights=False"
                )
        joined = self.out_proj(out.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return joined[0], None if weights is None else weights[0]
        return joined if self.batch_first else joined.transpose(0, 1), weights

    def extra_repr(self) -> str:
        """Sizes and layout."""
        return f"{self.embed_dim}, {self.num_heads}, batch_first={self.batch_first}"

    def _rows_first(self, x: Tensor, batched: bool) -> Tensor:
        """(B, L, E)"""
        if not batched:
            return x[None]
        return x if self.batch_first else x.transpose(0, 1)

    def _projected(self, x: Tensor, source: Tensor, content: Tensor) -> list[Tensor]:
        """(B, H, L, D) each."""
        apart: tuple[Any, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = apart if self.in_proj_weight is None else self.in_proj_weight.chunk(3)
        biases: Any = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [
            F.linear(t, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for t, weight, bias in zip((x, source, content), weights, biases, strict=True)
        ]

    def _key_mask(self, padding: Tensor | None, batch: int, length: int) -> Tensor | None:
        """(B, Lk), True where a key is valid: the opposite of torch's."""
        if padding is None:
            return None
        padding = padding[None] if padding.ndim == 1 else padding
        if padding.shape != (batch, length):
            raise ValueError(
                f"key_padding_mask has shape {tuple(padding.shape)}; it must be {(batch, length)}"
            )
        if padding.dtype is torch.bool:
            return ~padding
        if not bool(((padding == 0) | (padding == -torch.inf)).all()):
            raise ValueError("key_padding_mask adds numbers to scores: only 0 and -inf are taken")
        return padding == 0

    def _require_mask(
        self, mask: Tensor | None, is_causal: bool, query: Tensor, key: Tensor
    ) -> None:
        causal = self.pattern is Pattern.CAUSAL_SELF
        if is_causal and not causal:
            raise ValueError(f"is_causal with {self.pattern.value}: build it with "
                             "pattern='causal-self'")  # fmt: skip
        if mask is None:
            return
        axis = -2 if query.ndim == 2 or self.batch_first else 0
        shape = (query.shape[axis], key.shape[axis])
        hidden = mask if mask.dtype is torch.bool else mask == -torch.inf
        above = torch.ones(shape, dtype=torch.bool, device=mask.device).triu(1)
        additive = mask.dtype is not torch.bool and bool((mask[~hidden] != 0).any())
        if causal and not additive and hidden.shape[-2:] == shape and bool((hidden == above).all()):
            return
        raise ValueError(
            "attn_mask is not the causal mask of a causal-self module: other masks have no meaning "
            "for most mechanisms; padding goes into key_padding_mask"
        )
