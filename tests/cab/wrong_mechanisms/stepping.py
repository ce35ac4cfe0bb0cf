"""Decoding that is another mechanism, sooner or later."""

import torch

from tests.cab.wrong_mechanisms.base import CC, CS, Softmax, attend, visible


class Step(Softmax):
    CAUGHT = "decoding"
    PATTERNS = (CS,)


class LateSteps(Step):
    """Beyond 100 tokens it drops the oldest."""

    def append(self, state, k_t, v_t):
        super().append(state, k_t, v_t)
        if state.length > 100:
            for name, dim in (("k", -2), ("v", -2), ("mask", -1)):
                x = state.tensors[name]
                state.tensors[name] = x.narrow(dim, 1, x.shape[dim] - 1)


class DriftingSteps(Step):
    """A running sum in half precision of what should be exact."""

    def append(self, state, k_t, v_t):
        super().append(state, k_t, v_t)
        state.tensors["v"] = state.tensors["v"] * (1 + 1e-8)


class PrefillIgnoresTheMask(Step):
    PATTERNS = (CS, CC)

    def prefill(self, k, v, context=None):
        return super().prefill(k, v, None)


class PrefillReadsALength(Step):
    PATTERNS = (CS, CC)

    def prefill(self, k, v, context=None):
        state = super().prefill(k, v, context)
        mask = state.tensors["mask"]
        state.tensors["mask"] = torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True)
        return state


class LongPromptsAreCut(Step):
    PATTERNS = (CS, CC)

    def prefill(self, k, v, context=None):
        state = super().prefill(k, v, context)
        for name, dim in (("k", -2), ("v", -2), ("mask", -1)):
            x = state.tensors[name]
            keep = min(256, x.shape[dim])
            state.tensors[name] = x.narrow(dim, x.shape[dim] - keep, keep)
        return state


class StepsInFloat32AreOther(Step):
    def step(self, q_t, k_t, v_t, state):
        out, state = super().step(q_t, k_t, v_t, state)
        return (out if out.dtype is torch.float64 else out * 1.01), state


class ReadsLayerInputs(Step):
    """Values are scaled by the layer's input, which `step` forgets."""

    def forward(self, q, k, v, context=None):
        return super().forward(q, k, self.scaled(v, context), context)

    def scaled(self, v, context):
        if context is None or context.key_input is None:
            return v
        return v * (1 + context.key_input.mean(-1)[:, None, :, None].to(v.dtype))

    def prefill(self, k, v, context=None):
        return super().prefill(k, self.scaled(v, context), context)


class StartsQueriesAtTheStart(Softmax):
    CAUGHT = "last queries"
    PATTERNS = (CS,)

    def forward(self, q, k, v, context=None):
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()[None, None]
        return attend(q, k, v, mask & visible(None, q, k, context))


class OneQuerySeesLess(Softmax):
    """A single query of many keys does not see its own."""

    CAUGHT = "last queries"
    PATTERNS = (CS,)

    def forward(self, q, k, v, context=None):
        if q.shape[-2] == 1 < k.shape[-2]:
            return attend(q, k, v, visible(self.pattern, q, k, context, -1))
        return super().forward(q, k, v, context)
