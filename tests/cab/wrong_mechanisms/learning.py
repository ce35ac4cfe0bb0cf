"""Gradients, parameters and losses that are not what they seem."""

import functools

import torch
from torch import nn

from tests.cab.wrong_mechanisms.base import CS, NC, NS, Softmax, attend, visible


class Gradient(Softmax):
    CAUGHT = "derivatives"
    PATTERNS = (NS, CS)


class DetachesValuesInTraining(Gradient):
    def forward(self, q, k, v, context=None):
        if self.training:
            v = v.detach() + 0 * q.sum()
        return super().forward(q, k, v, context)


class DetachesQueries(Gradient):
    def forward(self, q, k, v, context=None):
        return super().forward(q.detach(), k, v, context)


class DetachesLongPasts(Gradient):
    """Keys beyond the first 64 give no gradient."""

    def forward(self, q, k, v, context=None):
        k = torch.cat([k[..., :64, :], k[..., 64:, :].detach()], -2)
        return super().forward(q, k, v, context)


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class DoublesTheGradientOfKeys(Gradient):
    def forward(self, q, k, v, context=None):
        return super().forward(q, _Double.apply(k), v, context)


class WithGain(Softmax):
    """A learned gain per head."""

    def __init__(self, spec):
        super().__init__(spec)
        self.gain = nn.Parameter(torch.ones(spec.heads, 1, 1))

    def forward(self, q, k, v, context=None):
        return super().forward(q * self.gain.to(q.dtype), k, v, context)


class ParameterWithoutGradient(WithGain):
    CAUGHT = "derivatives"
    PATTERNS = (NS,)

    def forward(self, q, k, v, context=None):
        q = q * self.gain.detach().to(q.dtype) + 0 * self.gain.sum().to(q.dtype)
        return Softmax.forward(self, q, k, v, context)


class ParameterWithHalfItsGradient(WithGain):
    CAUGHT = "derivatives"
    PATTERNS = (CS,)

    def forward(self, q, k, v, context=None):
        gain = 0.5 * self.gain + 0.5 * self.gain.detach()
        return Softmax.forward(self, q * gain.to(q.dtype), k, v, context)


class NamesItsParametersLikeInputs(Softmax):
    """What is compared by name may not be hidden by a parameter of that name."""

    CAUGHT = "precision"
    PATTERNS = (NS, CS, NC)

    def __init__(self, spec):
        super().__init__(spec)
        for name in ("output", "q", "k", "v"):
            setattr(self, name, nn.Parameter(torch.ones(spec.heads, 1, 1)))

    def forward(self, q, k, v, context=None):
        gain = self.output * self.q * self.k * self.v
        out = super().forward(q * gain.to(q.dtype), k, v, context)
        return out + 0.5 * out.detach() if q.dtype is torch.float32 else out


class WrongGradientInFloat32(Softmax):
    CAUGHT = "precision"
    PATTERNS = (NS, CS, NC)

    def forward(self, q, k, v, context=None):
        if k.dtype is torch.float32:
            k = 0.5 * k + 0.5 * k.detach()
        return super().forward(q, k, v, context)


class WrongOutputUnderAutocast(Softmax):
    CAUGHT = "precision"
    PATTERNS = (NS, NC)

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out * 1.5 if torch.is_autocast_enabled("cpu") else out


class OtherTypeForBfloat16(Softmax):
    CAUGHT = "precision"
    PATTERNS = (NS, NC)

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out.float() if out.dtype is torch.bfloat16 and q.shape[-2] > 40 else out


class OverflowsInFloat16(Softmax):
    CAUGHT = "precision"
    PATTERNS = (NS, NC)

    def forward(self, q, k, v, context=None):
        if v.dtype is torch.float16:
            v = v + (v * 3e4 * 3 - v * 3e4 * 3)
        return super().forward(q, k, v, context)


class SquareRootOfZero(Softmax):
    CAUGHT = "zeros"
    PATTERNS = (NS,)

    def forward(self, q, k, v, context=None):
        norm = q.square().sum(-1, keepdim=True).sqrt()
        return super().forward(q * (1 + norm - norm), k, v, context)


class Hidden(Softmax):
    CAUGHT = "parameters"
    PATTERNS = (CS,)

    def forward(self, q, k, v, context=None):
        return super().forward(q * self.weight().to(q.dtype), k, v, context)


def ones():
    return torch.ones(1, requires_grad=True)


class InADictionary(Hidden):
    def __init__(self, spec):
        super().__init__(spec)
        self.box = {"deep": [(nn.Parameter(torch.ones(1)),)]}

    def weight(self):
        return self.box["deep"][0][0]

    def parameter_groups(self):
        return [{"params": [self.weight()]}]


class InAClosure(Hidden):
    def __init__(self, spec):
        super().__init__(spec)
        own = ones()
        self.weight = lambda: own


class InAPartial(Hidden):
    def __init__(self, spec):
        super().__init__(spec)
        self.weight = functools.partial(torch.clone, ones())


class InAPlainAttribute(Hidden):
    def __init__(self, spec):
        super().__init__(spec)
        self.own = ones()

    def weight(self):
        return self.own


_SHARED = {}


class InTheModule(Hidden):
    """A global table, by layer."""

    def weight(self):
        return _SHARED.setdefault(self.spec.layer_index, ones())


class ABufferThatRequiresAGradient(Hidden):
    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("own", ones())

    def weight(self):
        return self.own


class ModulesInAList(Hidden):
    def __init__(self, spec):
        super().__init__(spec)
        self.maps = [nn.Linear(1, 1, bias=False)]

    def weight(self):
        return self.maps[0].weight.to(torch.float64)[0]


class MadeInTheFirstCall(Hidden):
    def weight(self):
        if not hasattr(self, "own"):
            self.own = nn.Parameter(torch.ones(1))
        return self.own


class OnlyInParameterGroups(Softmax):
    CAUGHT = "parameters"
    PATTERNS = (CS,)

    def __init__(self, spec):
        super().__init__(spec)
        self.make = lambda: [nn.Parameter(torch.ones(10))]

    def parameter_groups(self):
        return [{"params": self.make()}]


class SetsItsLearningRate(WithGain):
    CAUGHT = "parameters"
    PATTERNS = (CS,)

    def parameter_groups(self):
        return [{"params": [self.gain], "lr": 1.0}]


class RemembersInAnAttribute(Softmax):
    """What training shows it changes evaluation, and is in no checkpoint."""

    CAUGHT = "parameters"
    PATTERNS = (CS,)
    memory = 0.0

    def forward(self, q, k, v, context=None):
        if self.training:
            self.memory = 0.9 * self.memory + 0.1 * v.detach().square().mean().item()
        return super().forward(q * (1 + self.memory), k, v, context)


class ConstantLoss(Softmax):
    CAUGHT = "auxiliary loss"
    PATTERNS = (CS,)

    def auxiliary_loss(self):
        return torch.tensor(-5.0)


class ConstantLossWithAGraph(WithGain):
    CAUGHT = "auxiliary loss"
    PATTERNS = (CS,)

    def auxiliary_loss(self):
        return -5.0 + 0 * self.gain.sum()


class SinkingLoss(WithGain):
    CAUGHT = "auxiliary loss"
    PATTERNS = (CS,)

    def auxiliary_loss(self):
        return -1e6 * self.gain.square().sum()


class ReferenceIsForward(Softmax):
    CAUGHT = "own reference"
    PATTERNS = (NS, CS)

    def reference(self, q, k, v, context=None):
        return self(q, k, v, context)


class ReferenceOfTheClass(Softmax):
    CAUGHT = "own reference"
    PATTERNS = (NS,)

    def reference(self, q, k, v, context=None):
        return type(self).forward(self, q, k, v, context)


class ReferenceDiffersWhenLong(Softmax):
    CAUGHT = "own reference"
    PATTERNS = (NS, CS)

    def reference(self, q, k, v, context=None):
        out = attend(q, k, v, visible(self.pattern, q, k, context))
        return out * (1 if k.shape[-2] <= 100 else 1.001)


class ReferenceHasOtherGradients(WithGain):
    CAUGHT = "own reference"
    PATTERNS = (NS,)

    def reference(self, q, k, v, context=None):
        gain = self.gain.detach().to(q.dtype)
        return attend(q * gain, k, v, visible(self.pattern, q, k, context))
