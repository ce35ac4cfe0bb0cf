"""Models with slots that are wired into them, and what their layers do, written out."""

import torch
from torch.nn import functional as F

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Slots
from tasks.backbones.token_transformer import TokenTransformer

LENGTH, WIDTH, HEADS = 11, 12, 3


class Text:
    """A task, as far as a fixed text needs one: 2 x 6 tokens of it."""

    ids = torch.tensor([[0, 3, 1, 6, 2, 2], [5, 4, 4, 1, 0, 6]])

    def training_batch(self, generator):
        return {"tokens": self.ids}

    def loss(self, model, batch):
        return model(batch["tokens"]).sum()


def stack(cls, pattern=Pattern.CAUSAL_SELF, layers=3, wired=True):
    """A wired model of some layers, in float64, and its slots."""
    torch.manual_seed(0)
    slots = Slots(pattern, cls, SoftmaxAttention)
    model = TokenTransformer(
        slots, pattern, tokens=7, classes=7, length=16, dim=WIDTH, heads=HEADS, layers=layers
    )
    for slot_class in dict.fromkeys(map(type, slots.candidates)):
        if wired and hasattr(slot_class, "wire"):
            slot_class.wire(model, slots.candidates, Text())
    return model.double().eval(), slots.candidates


def tokens(rows=2, length=LENGTH, seed=0):
    return torch.randint(7, (rows, length), generator=torch.Generator().manual_seed(seed))


def calls(model, slots, ids):
    """q, k and v that every slot is called with for the tokens; of a second stream, before."""
    seen = []
    handles = [
        slot.register_forward_pre_hook(lambda _, args: seen.append(args[:3])) for slot in slots
    ]
    out = model(ids)
    for handle in handles:
        handle.remove()
    return out, [call for call in seen if len(call[2]) == len(ids)]


def split(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def projected(layer, source):
    """Queries and keys that a layer makes of something."""
    # Calling the projections would meet the hooks.
    held = layer.attention
    return [F.linear(source, w.weight, w.bias) for w in (held.query, held.key)]


def mixed_with(layer, x, q, k):
    """A pre-norm layer with causal softmax attention of some queries and keys."""
    held = layer.attention
    v = held.value(layer.attention_norm(x))
    scores = split(q) @ split(k).mT / (WIDTH // HEADS) ** 0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ split(v)
    x = x + held.output(mixed.transpose(1, 2).flatten(2))
    return x + layer.feed_forward(layer.feed_forward_norm(x))


def attend(layer, x, source):
    """A pre-norm layer whose queries and keys are projections of something else."""
    return mixed_with(layer, x, *projected(layer, source))


def embedded(model, ids):
    return model.token(ids) + model.position[: ids.shape[1]]
