"""Calls and rows that reach into each other."""

import torch

from tests.cab.wrong_mechanisms.base import CC, CS, NC, NS, Softmax


class Mixing(Softmax):
    CAUGHT = "rows apart"
    PATTERNS = (NS, CS, NC, CC)

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if self.when(q, k, v, context):
            out = out + 0.05 * out.mean(0, keepdim=True)
        return out


class MixesInFloat32(Mixing):
    def when(self, q, k, v, context):
        return q.dtype is torch.float32


class MixesInBfloat16(Mixing):
    def when(self, q, k, v, context):
        return q.dtype is torch.bfloat16


class MixesLongSequences(Mixing):
    def when(self, q, k, v, context):
        return k.shape[-2] > 64


class MixesLargeBatches(Mixing):
    PATTERNS = (NS, NC)

    def when(self, q, k, v, context):
        return len(q) > 4


class Call(Softmax):
    CAUGHT = "calls"
    PATTERNS = (NS, CS, NC, CC)


class CachesByShape(Call):
    """The scale of the first call of a shape is kept."""

    def forward(self, q, k, v, context=None):
        held = self.__dict__.setdefault("held", {})
        scale = held.setdefault((q.shape, k.shape), q.detach().square().mean().sqrt().item())
        return (
            super().forward(q * scale, k, v, context)
            if not self.training
            else v[..., :1, :] * (q[..., :1] * 0) + super().forward(q, k, v, context)
        )


class CachesByIdentity(Call):
    """The product of keys that it has seen, by their address."""

    def forward(self, q, k, v, context=None):
        held = self.__dict__.setdefault("held", {})
        own = held.setdefault(k.data_ptr(), k.detach().clone())
        same = own.shape == k.shape and own.dtype == k.dtype
        use = own if same and not self.training and not k.requires_grad else k
        return super().forward(q, use, v, context)


class GrowsTired(Call):
    """After some calls it is another."""

    def forward(self, q, k, v, context=None):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(q * (1 if self.calls < 12 else 0.5), k, v, context)


class ReusesItsOutput(Call):
    """Writes every output of a shape to the same memory."""

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if self.training or (torch.is_grad_enabled() and out.requires_grad):
            return out
        held = self.__dict__.setdefault("held", {})
        buffer = held.setdefault((out.shape, out.dtype), torch.empty_like(out))
        return buffer.copy_(out)


class ScalesQueriesInPlace(Call):
    def forward(self, q, k, v, context=None):
        if q.requires_grad:
            return super().forward(q * 0.5, k, v, context)
        return super().forward(q.mul_(0.5), k, v, context)


class NormalisesValuesInPlaceInFloat32(Call):
    def forward(self, q, k, v, context=None):
        if v.dtype is torch.float32 and not v.requires_grad:
            v -= v.mean(-1, keepdim=True)
        return super().forward(q, k, v, context)


class WritesIntoTheMask(Call):
    def forward(self, q, k, v, context=None):
        if context is not None and context.key_mask is not None and not self.training:
            context.key_mask[:, -1] = context.key_mask[:, -1] & context.key_mask[:, 0]
        return super().forward(q, k, v, context)


class ChangesTheContext(Call):
    def forward(self, q, k, v, context=None):
        if context is not None and context.query_positions is None:
            context.query_positions = torch.arange(q.shape[-2])
        return super().forward(q, k, v, context)


class DrawsInEvaluation(Call):
    """Noise in short dtypes only."""

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out if q.dtype is torch.float64 else out + 0.1 * torch.rand(1).to(out.dtype)


class SeedsTorch(Call):
    def forward(self, q, k, v, context=None):
        torch.manual_seed(0)
        return super().forward(q, k, v, context) + 0 * torch.rand(1).to(v.dtype)


class TurnsSwitches(Call):
    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if not self.training and not q.requires_grad:
            torch.use_deterministic_algorithms(True, warn_only=True)
        return out
