"""Plain softmax attention with handles to spoil it by."""

import torch

from cab import Attention, AttentionInfo, Grade, Pattern
from cab.attention_contract import DecodeState

CS, NS = Pattern.CAUSAL_SELF, Pattern.NONCAUSAL_SELF
CC, NC = Pattern.CAUSAL_CROSS, Pattern.NONCAUSAL_CROSS

INFO = AttentionInfo(
    id="wrong",
    title="",
    formula="",
    time="",
    memory="",
    patterns=dict.fromkeys(Pattern, Grade.FAITHFUL),
)


def visible(pattern, q, k, context, ahead=0):
    """(B or 1, 1, Lq, Lk); ``ahead`` tokens of the future where the pattern is causal."""
    length_q, length_k = q.shape[-2], k.shape[-2]
    mask = torch.ones(1, 1, length_q, length_k, dtype=torch.bool)
    if pattern is CS:
        mask = mask.tril(length_k - length_q + ahead)
    if context is not None and context.key_mask is not None:
        mask = mask & context.key_mask[:, None, None, :]
    return mask


def attend(q, k, v, mask):
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).masked_fill(~mask, 0.0)
    return weights.to(v.dtype) @ v


class Softmax(Attention):
    """Right. A subclass says where it is not: `ahead` gives how many tokens of the future are seen
    in causal self attention; in causal cross attention a later query is added.
    """

    info = INFO
    PATTERNS = (CS,)
    CAUGHT = ""

    def when(self, q, k, v, context):
        """Whether this call is spoilt."""
        return False

    def forward(self, q, k, v, context=None):
        wrong = bool(self.when(q, k, v, context))
        out = attend(q, k, v, visible(self.pattern, q, k, context, int(wrong)))
        if wrong and self.pattern is CC:
            later = torch.cat([q[..., 1:, :], q[..., -1:, :]], -2).mean(-1, keepdim=True)
            out = out + 0.1 * later.to(out.dtype)
        return out

    def prefill(self, k, v, context=None):
        state = DecodeState(k.shape[-2], {"k": k, "v": v})
        mask = None if context is None else context.key_mask
        state.tensors["mask"] = torch.ones(len(k), k.shape[-2], dtype=torch.bool)
        if mask is not None:
            state.tensors["mask"] = mask
        return state

    def step(self, q_t, k_t, v_t, state):
        if k_t is not None:
            self.append(state, k_t, v_t)
        mask = state.tensors["mask"][:, None, None, :]
        return attend(q_t, state.tensors["k"], state.tensors["v"], mask), state

    def append(self, state, k_t, v_t):
        t = state.tensors
        t["k"], t["v"] = torch.cat([t["k"], k_t], -2), torch.cat([t["v"], v_t], -2)
        t["mask"] = torch.cat([t["mask"], t["mask"].new_ones(len(k_t), 1)], -1)
        state.length += 1
