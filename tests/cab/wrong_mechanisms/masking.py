"""Masks that are read wrongly."""

from dataclasses import replace

import torch

from cab import Attention
from tests.cab.wrong_mechanisms.base import CC, CS, INFO, NC, NS, Softmax, attend, visible


def with_mask(context, mask):
    return replace(context, key_mask=mask)


class Changed(Softmax):
    """A mask is changed before it is used."""

    CAUGHT = "mask holes"
    PATTERNS = (NS, CS, NC, CC)

    def forward(self, q, k, v, context=None):
        if context is not None and context.key_mask is not None:
            context = with_mask(context, self.other(context.key_mask))
        return super().forward(q, k, v, context)


class ReadsALength(Changed):
    def other(self, mask):
        return torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True)


class FillsHoles(Changed):
    """Everything between the first and the last valid key counts."""

    def other(self, mask):
        return (mask.cumsum(-1) > 0) & (mask.flip(-1).cumsum(-1).flip(-1) > 0)


class ForgetsLeadingPadding(Changed):
    def other(self, mask):
        return mask.flip(-1).cumsum(-1).flip(-1) > 0


class OneRowsMaskForAll(Changed):
    def other(self, mask):
        return mask[:1].expand_as(mask)


class OnlyShortMasks(Changed):
    """Beyond 128 keys a mask is forgotten."""

    def other(self, mask):
        return mask if mask.shape[1] <= 128 else torch.ones_like(mask)


class NotInTraining(Softmax):
    CAUGHT = "mask holes"
    PATTERNS = (NS, NC)

    def forward(self, q, k, v, context=None):
        if self.training and q.shape[-2] > 1 and context is not None:
            context = with_mask(context, None)
        return super().forward(q, k, v, context)


class AddsTheMask(Softmax):
    """0 and 1 are added to scores where -inf and 0 should be."""

    CAUGHT = "mask holes"
    PATTERNS = (NC, CC)

    def forward(self, q, k, v, context=None):
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if context is not None and context.key_mask is not None:
            scores = scores + context.key_mask[:, None, None, :]
        out = scores.softmax(-1) @ v
        if context is not None and context.key_mask is not None:
            out = out * context.key_mask.any(-1)[:, None, None, None]
        return out


class CountsMaskedKeys(Softmax):
    """A mean over all keys, masked ones as zeros."""

    CAUGHT = "mask holes"
    PATTERNS = (NC, CC)

    def forward(self, q, k, v, context=None):
        if context is not None and context.key_mask is not None:
            v = v * context.key_mask[:, None, :, None]
        return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])


class EmptyRowIsNotANumber(Softmax):
    CAUGHT = "mask content"
    PATTERNS = (NC, CC, NS, CS)

    def forward(self, q, k, v, context=None):
        mask = visible(self.pattern, q, k, context)
        scores = q @ k.mT * q.shape[-1] ** -0.5
        return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v


class EmptyRowIsTheMean(Softmax):
    """In float32: a large negative number instead of minus infinity."""

    CAUGHT = "mask content"
    PATTERNS = (NC, NS)

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        mask = visible(self.pattern, q, k, context)
        if q.dtype is torch.float64:
            return out
        return torch.where(mask.any(-1, keepdim=True), out, torch.ones_like(out))


class PoolsMaskedQueries(Softmax):
    """The mean query is added to each, padding included."""

    CAUGHT = "mask holes"
    PATTERNS = (NC,)

    def forward(self, q, k, v, context=None):
        weight = torch.ones(len(q), q.shape[-2], dtype=q.dtype)
        return super().forward(q + (q * weight[:, None, :, None]).mean(-2, True), k, v, context)


class GarbageEntersTheScale(Softmax):
    """Keys are scaled by the mean over all of them, masked ones too."""

    CAUGHT = "mask holes"
    PATTERNS = (NS, NC)

    def forward(self, q, k, v, context=None):
        return super().forward(q, k / (0.1 + k.square().mean((-1, -2), True)), v, context)


class TrueMaskIsAnother(Softmax):
    """With a mask, another scale."""

    CAUGHT = "places"
    PATTERNS = (NS, CS, NC, CC)

    def forward(self, q, k, v, context=None):
        masked = context is not None and context.key_mask is not None
        return super().forward(q * 0.9 if masked else q, k, v, context)


class StartsPositionsElsewhere(Softmax):
    """Without positions it counts from 1; given ones count from 0."""

    CAUGHT = "places"
    PATTERNS = (NS, CS, NC, CC)

    def forward(self, q, k, v, context=None):
        places = torch.arange(1, k.shape[-2] + 1)
        if context is not None and context.key_positions is not None:
            places = context.key_positions
        places = torch.atleast_2d(places)[:, None, :, None]
        return super().forward(q, k * (1 + 0.01 * places).to(k.dtype), v, context)


class DividesByMaxLength(Softmax):
    CAUGHT = "places"
    PATTERNS = (NS, NC)

    def forward(self, q, k, v, context=None):
        return super().forward(q * (1 + 8 / self.spec.max_length), k, v, context)


class CountsValidKeysForPositions(Softmax):
    """Reads positions, but under a mask counts the valid keys instead."""

    CAUGHT = "mask holes"
    PATTERNS = (NC,)

    def forward(self, q, k, v, context=None):
        places = torch.arange(k.shape[-2])
        if context is not None and context.key_positions is not None:
            places = context.key_positions
        elif context is not None and context.key_mask is not None:
            places = context.key_mask.cumsum(-1) - 1
        places = torch.atleast_2d(places)[:, None, :, None]
        mask = visible(self.pattern, q, k, context)
        return attend(q, k * (1 + 0.01 * places).to(k.dtype), v, mask)


class CountsWhatIsRemoved(Attention):
    """A mean that decays with the distance; masked keys, whose values are zeros, count in its
    divisor, in its reference as well.
    """

    CAUGHT = "mask holes"
    PATTERNS = (CS,)
    info = INFO

    def forward(self, q, k, v, context=None):
        i = torch.arange(q.shape[-2])[:, None] + k.shape[-2] - q.shape[-2]
        age = i - torch.arange(k.shape[-2])
        seen = visible(CS, q, k, context).any(-1, keepdim=True)
        weights = torch.where(age >= 0, 0.9 ** age.clamp(min=0), 0.0).to(v.dtype)
        return (weights / weights.sum(-1, keepdim=True) * seen) @ v

    reference = forward
