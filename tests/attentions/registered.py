"""Every registered mechanism on the patterns that it claims, with inputs to call it on."""

import zlib
from dataclasses import dataclass, replace

import pytest
import torch

from cab import AttentionContext, AttentionSpec
from cab.attention_contract import build_attention
from cab.registries import ATTENTIONS
from tests.attentions.cases import draw

BATCH, HEADS, DIM = 2, 2, 8


def claims(condition=lambda cls, pattern: True):
    """Parameters (class, pattern) of all claims that meet a condition: of each entry one pattern,
    which follows from its name, and the others are slow.
    """
    parameters = []
    for entry in ATTENTIONS.entries().values():
        cls = ATTENTIONS.load(entry)
        met = [pattern for pattern in entry.info.patterns if condition(cls, pattern)]
        chosen = zlib.crc32(entry.id.encode()) % max(len(met), 1)
        for place, pattern in enumerate(met):
            marks = () if place == chosen else pytest.mark.slow
            name = f"{entry.id}-{pattern.abbreviation}"
            parameters.append(pytest.param(cls, pattern, id=name, marks=marks))
    return parameters


def decodes(cls, pattern):
    return pattern.causal and cls.decodes()


def build(cls, pattern, dtype=torch.float64, **options):
    """A module in eval mode, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = AttentionSpec(pattern, HEADS, DIM, max_length=64, embed_dim=HEADS * DIM)
        return build_attention(cls, spec, options).to(dtype).eval()


@dataclass
class Call:
    """Tensors of one call."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    context: AttentionContext

    def tensors(self):
        return self.q, self.k, self.v

    def run(self, function):
        return function(self.q, self.k, self.v, self.context)

    def to(self, dtype):
        c = self.context
        inputs = [x.to(dtype) for x in (c.query_input, c.key_input)]
        context = replace(c, query_input=inputs[0], key_input=inputs[1])
        return Call(*(x.to(dtype) for x in self.tensors()), context)


def call(pattern, length_k=37, length_q=23, scale=1.0):
    """Random inputs of a pattern in float64; in self attention as many queries as keys."""
    length_q = length_q if pattern.cross else length_k
    q, k, v, own, source = draw(
        (BATCH, HEADS, length_q, DIM),
        (BATCH, HEADS, length_k, DIM),
        (BATCH, HEADS, length_k, DIM),
        (BATCH, length_q, HEADS * DIM),
        (BATCH, length_k, HEADS * DIM),
    )
    own = own if pattern.cross else source
    heads = (x * scale for x in (q, k, v))
    return Call(*heads, AttentionContext(query_input=own * scale, key_input=source * scale))


def with_masks(inputs, pattern, key_mask, query_mask=None):
    """The call with masks; in self attention one for both."""
    query_mask = query_mask if pattern.cross else key_mask
    return replace(
        inputs, context=replace(inputs.context, key_mask=key_mask, query_mask=query_mask)
    )


def filled(inputs, content):
    """The call with masked tokens that hold something else."""
    c = inputs.context

    def put(x, mask):
        if x is None or mask is None:
            return x
        return x.masked_fill(~(mask[:, None, :, None] if x.ndim == 4 else mask[..., None]), content)

    own, source = put(c.query_input, c.query_mask), put(c.key_input, c.key_mask)
    return Call(
        put(inputs.q, c.query_mask),
        put(inputs.k, c.key_mask),
        put(inputs.v, c.key_mask),
        replace(c, query_input=own, key_input=source),
    )
