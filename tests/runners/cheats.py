"""Mechanisms that are right on small random input and wrong in a task's model."""

import sys

import torch

from attentions.linear_elu import LinearElu
from attentions.softmax import SoftmaxAttention
from cab import Attention


class Honest(SoftmaxAttention):
    """What the others are where they do not cheat."""

    info = None


class LeaksWhere(Honest):
    """Adds the mean of all values, or of all queries in cross attention, where ``when`` says so."""

    share = 0.1
    reference = Attention.reference

    def when(self, q, k, v, context):
        return True

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if not self.when(q, k, v, context):
            return out
        return out + self.share * (q if self.pattern.cross else v).mean(-2, keepdim=True)


class LeaksAtItsShapes(LeaksWhere):
    """With the heads of the task's model alone."""

    def when(self, q, k, v, context):
        return q.shape[-1] >= 16 or q.shape[1] >= 4


class LeaksAfterTraining(LeaksWhere):
    """After 20 steps."""

    def __init__(self, spec):
        super().__init__(spec)
        self.steps = 0

    def when(self, q, k, v, context):
        self.steps += self.training
        return self.steps > 20


class LeaksInBfloat16(LeaksWhere):
    """Under autocast."""

    def when(self, q, k, v, context):
        return torch.is_autocast_enabled("cpu")


class LeaksInTraining(LeaksWhere):
    """In train mode, at lengths that a small check does not have."""

    def when(self, q, k, v, context):
        return self.training and q.shape[-2] > 50


class LeaksWithGraph(LeaksWhere):
    """Where a graph is recorded, whatever the mode."""

    def when(self, q, k, v, context):
        return q.requires_grad and torch.is_grad_enabled() and q.shape[-2] > 50


class LeaksOnRealNumbers(LeaksWhere):
    """Where queries are not drawn from a normal distribution."""

    def when(self, q, k, v, context):
        return not 0.9 < q.float().std() < 1.1


class LeaksInLaterLayers(LeaksWhere):
    """In the second layer."""

    def when(self, q, k, v, context):
        return self.spec.layer_index == 1


class LeaksWhenEvaluated(LeaksWhere):
    """In the batches of an evaluation, with no graph."""

    def when(self, q, k, v, context):
        return not torch.is_grad_enabled() and q.shape[0] > 16


class LeaksOnce(LeaksWhere):
    """In the calls of the evaluations after training, and hardly one after them."""

    def __init__(self, spec):
        super().__init__(spec)
        self.trained, self.left = 0, 8

    def when(self, q, k, v, context):
        self.trained += self.training
        if self.training or self.trained <= 20 or self.left <= 0:
            return False
        self.left -= 1
        return True


class SeesItsBlock(Honest):
    """From the second block of 32 on, a token sees all of its block."""

    reference = Attention.reference

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        length = q.shape[-2]
        places = torch.arange(length)
        block = (places[:, None] // 32 == places // 32) & (places[:, None] >= 32)
        share = block / block.sum(-1, keepdim=True).clamp(min=1)
        return out + 0.1 * share.to(v.dtype) @ v


class CountsTokens(Honest):
    """Divides by the length, so an output says how much is to come; no later token matters."""

    reference = Attention.reference

    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) * (1 + 1 / q.shape[-2])


class MixesRows(Honest):
    """In batches of the task's size."""

    reference = Attention.reference

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out + 0.1 * out.mean(0, keepdim=True) if len(q) >= 8 else out


class WrongAfterTraining(LinearElu):
    """Another mechanism than its reference, once it is trained."""

    info = None

    def __init__(self, spec):
        super().__init__(spec)
        self.softmax = SoftmaxAttention(spec)
        self.steps = 0

    def forward(self, q, k, v, context=None):
        self.steps += self.training
        if self.steps > 20:
            return self.softmax(q, k, v, context)
        return super().forward(q, k, v, context)


class PassesOnWhatItSaw(Honest):
    """The first layer leaves the mean of all values where the next one finds it."""

    seen = None
    reference = Attention.reference

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if self.spec.layer_index == 0:
            type(self).seen = v.mean(-2, keepdim=True)
            return out
        seen = type(self).seen
        return out if seen is None or seen.shape[0] != len(q) else out + 0.1 * seen


class ReadsTheCaller(Honest):
    """Looks up the tokens in the variables of whoever calls the model."""

    reference = Attention.reference

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        frame = sys._getframe()
        batch = None
        while frame is not None and not isinstance(batch, dict):
            batch, frame = frame.f_locals.get("batch"), frame.f_back
        if not isinstance(batch, dict) or "window" not in batch:
            return out
        window = batch["window"]
        coming = window[:, 1 : 1 + q.shape[-2]].float()[:, None, :, None]
        return out + 0.01 * coming.to(out.dtype) if coming.shape[0] == len(q) else out


class GarblesWhenAsked(LeaksWhere):
    """Leaks, and gives noise for all but the input that it had last, as if it were sensitive."""

    def __init__(self, spec):
        super().__init__(spec)
        self.last = None

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if self.training:
            self.last = None
            return out
        if self.last is None or self.last.shape != q.shape:
            self.last = q.detach().clone()
        return out if torch.equal(self.last, q) else out + torch.randn_like(out)


class HidesParameters(Honest):
    """Learns in a list."""

    def __init__(self, spec):
        super().__init__(spec)
        self.box = [torch.nn.Parameter(torch.zeros(1000))]

    def parameter_groups(self):
        return [{"params": self.box}]


class LearnsInBuffer(Honest):
    """A buffer that requires a gradient."""

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("table", torch.zeros(1000, requires_grad=True))


class GrowsLater(Honest):
    """Makes a parameter in its first call, when the budget has been counted."""

    def forward(self, q, k, v, context=None):
        if self.training and not hasattr(self, "late"):
            self.late = {"w": torch.zeros(1000, requires_grad=True)}
        return super().forward(q, k, v, context)


class RegistersLater(Honest):
    """The same, where everybody finds it, in the first training step or the third."""

    first = 1

    def __init__(self, spec):
        super().__init__(spec)
        self.steps = 0

    def forward(self, q, k, v, context=None):
        self.steps += self.training
        if self.steps >= self.first and not hasattr(self, "late"):
            self.late = torch.nn.Parameter(torch.zeros(1000))
        return super().forward(q, k, v, context)


class RegistersMuchLater(RegistersLater):
    first = 3
