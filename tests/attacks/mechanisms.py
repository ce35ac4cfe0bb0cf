"""Mechanisms that cheat the efficiency runner: each claims to be softmax attention.

They keep the contract at the small sizes of its checks and of the first gate, and cheat from
`_FROM` tokens on.
"""

import threading
import time

import torch
from torch.nn import functional as F

from attentions.softmax import SoftmaxAttention
from cab.attention_contract import Attention, DecodeState

_FROM = 200


class Honest(SoftmaxAttention):
    """The same without a cheat: what must pass."""

    info = None


class CachesByIdentity(Honest):
    """Keeps outputs by the address of the queries, which the allocator gives out again."""

    def __init__(self, spec):
        super().__init__(spec)
        self.cache = {}

    def forward(self, q, k, v, context=None):
        if q.shape[-2] < _FROM:
            return super().forward(q, k, v, context)
        key = (q.data_ptr(), q.shape)
        if key not in self.cache:
            self.cache[key] = super().forward(q, k, v, context)
        return self.cache[key].clone()


class CachesByShape(CachesByIdentity):
    """Keeps one output for every shape."""

    def forward(self, q, k, v, context=None):
        if q.shape[-2] < _FROM:
            return SoftmaxAttention.forward(self, q, k, v, context)
        if q.shape not in self.cache:
            self.cache[q.shape] = SoftmaxAttention.forward(self, q, k, v, context)
        return self.cache[q.shape]


class StaleMemory(Honest):
    """Returns memory that nothing has been written to."""

    def forward(self, q, k, v, context=None):
        if q.shape[-2] < _FROM:
            return super().forward(q, k, v, context)
        return torch.empty_like(q)


class WorksInThread(Honest):
    """Returns at once and lets a thread write the output, not before the next call begins: when is
    not left to the machine.
    """

    def __init__(self, spec):
        super().__init__(spec)
        self.next_call = threading.Event()

    def forward(self, q, k, v, context=None):
        if q.shape[-2] < _FROM:
            return super().forward(q, k, v, context)
        out = torch.zeros_like(q)
        self.next_call.set()
        self.next_call = begun = threading.Event()

        def work():
            begun.wait(1.0)
            out.copy_(SoftmaxAttention.forward(self, q, k, v, context))

        threading.Thread(target=work, daemon=True).start()
        return out


class WorksInStream(Honest):
    """Works in a stream of its own that nobody waits for."""

    def forward(self, q, k, v, context=None):
        if q.shape[-2] < _FROM:
            return super().forward(q, k, v, context)
        with torch.cuda.stream(torch.cuda.Stream()):
            return super().forward(q, k, v, context)


class PatchesTime(Honest):
    """Replaces Python's clock by one that runs slowly."""

    def __init__(self, spec):
        super().__init__(spec)
        true = time.perf_counter_ns
        time.perf_counter_ns = lambda: true() // 10


class PatchesRunnersClock(Honest):
    """Replaces the clock where the runner keeps it."""

    def __init__(self, spec):
        super().__init__(spec)
        from runners.efficiency import clock

        true = clock.perf_counter_ns
        clock.perf_counter_ns = lambda: true() // 10


class PatchesJudge(StaleMemory):
    """Returns anything, and has the judge say that it is right."""

    def __init__(self, spec):
        super().__init__(spec)
        from runners.efficiency import judge

        judge.Judge.check = lambda *_args, **_named: judge.Verdict("reference", 0.0)


class SlowsBaseline(Honest):
    """Makes what it is compared with slower."""

    def __init__(self, spec):
        super().__init__(spec)
        true = F.scaled_dot_product_attention

        def slow(*args, **named):
            time.sleep(0.001)
            return true(*args, **named)

        F.scaled_dot_product_attention = slow


class TakesMoreThreads(Honest):
    """Runs on more threads than it is given."""

    def forward(self, q, k, v, context=None):
        torch.set_num_threads(3)
        return super().forward(q, k, v, context)


class FewerKeys(Honest):
    """Attends to the last 64 keys alone."""

    def forward(self, q, k, v, context=None):
        length = q.shape[-2]
        if length < _FROM:
            return super().forward(q, k, v, context)
        places = torch.arange(length)
        near = (places[:, None] - places < 64) & (places[:, None] >= places)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=near)


class ReadsFuture(Honest):
    """Attends to all keys where later ones are not to be seen."""

    def forward(self, q, k, v, context=None):
        if q.shape[-2] < _FROM:
            return super().forward(q, k, v, context)
        return F.scaled_dot_product_attention(q, k, v)


class ReadsFutureWithoutReference(ReadsFuture):
    """The same, with no reference to be held to."""

    reference = Attention.reference


class Later(torch.Tensor):
    """A tensor whose numbers are computed when somebody looks at them."""

    @staticmethod
    def __new__(cls, work, like):
        made = torch.Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype)
        made.work = work
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args = [x.work() if isinstance(x, cls) else x for x in args]
        return func(*args, **(kwargs or {}))


class Lazy(Honest):
    """Returns something that is computed when it is read."""

    def forward(self, q, k, v, context=None):
        if q.shape[-2] < _FROM:
            return super().forward(q, k, v, context)
        return Later(lambda: SoftmaxAttention.forward(self, q, k, v, context), q)


class DetectsShapes(Honest):
    """Returns the values at lengths that are a power of two: nobody else would use those."""

    def forward(self, q, k, v, context=None):
        length = q.shape[-2]
        if length >= _FROM and length & (length - 1) == 0:
            return v.clone()
        return super().forward(q, k, v, context)


class DetectsShapesWithoutReference(DetectsShapes):
    """The same, with no reference to be held to."""

    reference = Attention.reference


class SkipsBackward(Honest):
    """Returns a right output that has no way back."""

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out if q.shape[-2] < _FROM else out.detach()


class ForgetsTokens(Honest):
    """Decodes without ever adding a token to its cache."""

    def step(self, q_t, k_t, v_t, state, context=None):
        if state.length < _FROM:
            return super().step(q_t, k_t, v_t, state, context)
        kept = DecodeState(state.length, dict(state.tensors))
        row, _ = super().step(q_t, None, None, kept, context)
        return row, state


class ImpossiblyFast(Honest):
    """Claims a million times the operations that it does."""

    def flops(self, shape):
        return 1e6 * super().flops(shape)
