"""A stack of Transformer layers over token ids: GPT-2 or RoBERTa, by the pattern of its slots."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Pattern, Slots
from tasks.backbones.positions import sinusoid
from tasks.backbones.transformer import SelfAttentionLayer


class TokenTransformer(nn.Module):
    """Embeddings, pre-norm layers, a final norm and a linear readout.

    With causal-self slots it is a GPT-2 decoder (Radford et al. 2019), with noncausal-self slots
    a RoBERTa encoder (Liu et al. 2019), in pre-norm form. Positions are trained as in both, but
    start as sinusoids: from a random start, telling neighbours apart takes most of a short run.
    A sequence longer than those trained on has the same sinusoids beyond them, as they started.
    """

    beyond: Tensor

    def __init__(
        self,
        slots: Slots,
        pattern: Pattern,
        *,
        tokens: int,
        classes: int,
        length: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int = 4,
        position_base: float = 1e4,
        position_amplitude: float = 1.0,
        longest: int | None = None,
    ) -> None:
        """Build the stack.

        Args:
            slots: gives the attention modules.
            pattern: of every slot.
            tokens: number of input ids.
            classes: number of output ids.
            length: longest sequence in training.
            dim: width of a token.
            heads: heads of every slot.
            layers: number of layers.
            expansion: of the feed-forward layers, hidden width by ``dim``.
            position_base: of the sinusoids that the positions start as.
            position_amplitude: likewise.
            longest: longest sequence of all; None: ``length``.
        """
        super().__init__()
        self.token = nn.Embedding(tokens, dim)
        longest = longest or length
        start = sinusoid(longest, dim, position_base, position_amplitude)
        self.position = nn.Parameter(start[:length].clone())
        self.register_buffer("beyond", start[length:].clone(), persistent=False)
        self.layers = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=layers, max_length=longest),
                pattern,
                dim,
                heads,
                expansion=expansion,
            )
            for index in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        # Torch's own start, not GPT-2's small one (0.02): with that, some seeds of a short
        # masked-LM run never leave the unigram plateau.
        self.readout = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor, read: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            tokens: (B, L) ids.
            read: (B, M) positions to read out; None: all of them.

        Returns:
            (B, M, classes), with M = L where ``read`` is None.
        """
        length, trained = tokens.shape[1], len(self.position)
        positions = self.position[:length]
        if length > trained:
            positions = torch.cat([positions, self.beyond[: length - trained]])
        x = self.token(tokens) + positions
        for layer in self.layers:
            x = layer(x)
        if read is not None:
            x = x.gather(1, read[..., None].expand(-1, -1, x.shape[-1]))
        return self.readout(self.norm(x))
