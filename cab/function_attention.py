"""A bare function ``f(q, k, v)`` as an attention: what a kernel's author has before there is a
class.

It has no state, no options and no context. Masked keys are removed before it is called, row by row
of the batch, so that a function that knows of no masks keeps the rule that they have no effect. A
function with a parameter ``is_causal`` or ``causal`` is told whether the pattern is causal self
attention; one without serves the patterns that it happens to hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cab.attention_context import AttentionContext
from cab.attention_contract import Attention
from cab.errors import RegistrationError
from cab.patterns import Pattern

_CAUSAL = ("is_causal", "causal")
"""Names of a parameter that asks for a causal mask, as torch and flash-attn have them"""


class FunctionAttention(Attention):
    """Calls a function of q, k and v."""

    function: ClassVar[Callable[..., Tensor]]

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            NotImplementedError: causal self attention of fewer queries than keys, of which a
                function of q, k and v does not know where they stand.
        """
        causal = self.pattern is Pattern.CAUSAL_SELF
        if causal and q.shape[-2] != k.shape[-2]:
            raise NotImplementedError("a function takes as many queries as keys")
        named = _causal_argument(self.function)
        given: Mapping[str, bool] = {named: causal} if named else {}
        mask = None if context is None else context.key_mask
        if mask is None:
            return self.function(q, k, v, **given)
        rows = [
            self._without(q[i : i + 1], k[i : i + 1], v[i : i + 1], mask[i], given)
            for i in range(len(mask))
        ]
        return torch.cat(rows)

    def _without(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, given: Mapping[str, bool]
    ) -> Tensor:
        """Of one row of the batch, without its masked keys; in self attention a token is query and
        key, and the output of a masked query is zero.
        """
        kept = mask.nonzero().flatten()
        if len(kept) == len(mask):
            return self.function(q, k, v, **given)
        own = kept if not self.pattern.cross and q.shape[-2] == k.shape[-2] else None
        queries = q if own is None else q[:, :, own]
        out = v.new_zeros(*q.shape[:-1], v.shape[-1])
        if not len(kept):
            return out
        found = self.function(queries, k[:, :, kept], v[:, :, kept], **given)
        return found if own is None else out.index_copy(-2, own, found)


@lru_cache(maxsize=256)
def attention_of_function(function: Callable[..., Any], name: str) -> type[Attention]:
    """A class that calls a function; the same one for the same function.

    Args:
        function: of q (B, H, Lq, D), k (B, H, Lk, D) and v (B, H, Lk, Dv).
        name: under which its module has it.

    Raises:
        RegistrationError: it is a module, which has state, or does not take three tensors.
    """
    if isinstance(function, nn.Module):
        raise RegistrationError(f"{name} is a module, which has state; name its class instead")
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        raise RegistrationError(
            f"{name}{inspect.signature(function)} cannot be called with q, k and v alone"
        ) from None
    except ValueError:
        pass  # a built-in function does not tell
    body = {
        "function": staticmethod(function),
        "__module__": getattr(function, "__module__", __name__) or __name__,
        "__qualname__": name,
        "__doc__": inspect.getdoc(function) or f"The function {name}.",
    }
    return type(name, (FunctionAttention,), body)


def _causal_argument(function: Callable[..., Any]) -> str:
    """The name of the parameter that asks for a causal mask; empty where there is none."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of a built-in function the text says it
        return "is_causal" if "is_causal" in (function.__doc__ or "") else ""
    return next((name for name in _CAUSAL if name in parameters), "")
