"""The backbone of scale paper: ParaGen's Transformer, as CAB configures it for Multi-News.

Post-norm layers (Vaswani et al. 2017) with GELU; learned positions; a norm on the embeddings of
either side; no tied weights: source, target and output have a matrix each, the output no bias.
Starts are ParaGen's: embeddings, positions and output from a normal distribution of deviation
1/sqrt(width), attention projections as in `torch.nn.MultiheadAttention`, feed-forward layers as
torch makes them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Batch, Slots
from tasks.backbones.multihead import MultiHeadAttention
from tasks.backbones.post_norm import PostNormCrossAttentionLayer, PostNormSelfAttentionLayer
from tasks.summarization.encoder_decoder import EncoderDecoder, Sizes, layers
from tasks.summarization.vocabulary import PADDING

SIZES = Sizes(dim=512, heads=8, layers=6, expansion=4, dropout=0.1)

SOURCE_POSITIONS, TARGET_POSITIONS = 4096, 512


class ParaGenTransformer(EncoderDecoder):
    """Encoder-decoder over a vocabulary of ``tokens`` ids, shared by source and target."""

    def __init__(
        self,
        slots: Slots,
        tokens: int,
        *,
        sizes: Sizes = SIZES,
        source_length: int = SOURCE_POSITIONS,
        target_length: int = TARGET_POSITIONS,
    ) -> None:
        super().__init__()
        dim = sizes.dim
        self.source = _Embedding(tokens, dim, source_length, sizes.dropout)
        self.target = _Embedding(tokens, dim, target_length, sizes.dropout)
        self.encoder, self.decoder = layers(
            slots,
            sizes,
            source_length=source_length,
            target_length=target_length,
            encoder=PostNormSelfAttentionLayer,
            decoder=PostNormCrossAttentionLayer,
        )
        self.output = nn.Linear(dim, tokens, bias=False)
        nn.init.normal_(self.output.weight, std=dim**-0.5)
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                _start_as_torch(module)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `EncoderDecoder.encode`."""
        mask = batch["source"] != PADDING
        x = self.source(batch["source"])
        for layer in self.encoder:
            x = layer(x, mask)
        return x, mask

    def decode(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """See `EncoderDecoder.decode`."""
        x = self.target(tokens)
        for layer in self.decoder:
            x = layer(x, memory, source_mask=mask)
        return x

    def logits(self, features: Tensor) -> Tensor:
        """See `EncoderDecoder.logits`."""
        return self.output(features)


class _Embedding(nn.Module):
    """Tokens and their positions, summed, normed and dropped out."""

    def __init__(self, tokens: int, dim: int, positions: int, dropout: float) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.token = nn.Embedding(tokens, dim, padding_idx=PADDING)
        self.position = nn.Embedding(positions, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.token.weight, std=dim**-0.5)
        nn.init.normal_(self.position.weight, std=dim**-0.5)
        with torch.no_grad():
            self.token.weight[PADDING] = 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) to (B, L, E)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) * self.scale + self.position(places)
        return self.dropout(self.norm(x))


def _start_as_torch(attention: MultiHeadAttention) -> None:
    """Weights drawn as if the three input projections were one matrix; no biases."""
    for projection in (attention.query, attention.key, attention.value):
        nn.init.xavier_uniform_(projection.weight, gain=0.5**0.5)
        nn.init.zeros_(projection.bias)
    nn.init.zeros_(attention.output.bias)
