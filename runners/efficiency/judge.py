"""The gate of the efficiency runner: a timed call is held to the mechanism's float64 reference.

The reference of a quadratic mechanism cannot be computed in full at every length, so at long ones
some rows are: the last ones and a stretch at a random place, each from the keys that it may see.
What pools over queries gives no single rows; there, and where an entry from outside has no
reference, the same inputs are given once more in another shape - cut short where the pattern is
causal, with a masked token more where it is not - and the outputs must agree. What routes
blocks of queries may give single rows at lengths at which it reads everything and others where it
is sparse: a difference from rows alone is looked at again before anything is said. So a shortcut
that is taken only at a benchmark's lengths, a result that was not ready, or one from another call's
inputs does not pass at any length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Attention, AttentionContext, Pattern
from cab.errors import ContractError
from runners.efficiency.inputs import Inputs
from runners.efficiency.latency import Witness

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Norm of the error relative to that of the output; a wrong mechanism is off by far more. Float32
leaves room for TF32."""

_PATIENCE = 1.0
"""Seconds that one comparison may be expected to take"""
_ROWS = 8
_PROBE = 48
"""Length at which it is found out what a reference can do and how long it takes"""
_STEP = 4
"""Factor between lengths at which that is asked again"""


@dataclass(frozen=True)
class Verdict:
    """What was compared, and how far it was off."""

    how: str
    """``reference``, ``reference (some rows)``, ``reference (a prefix)`` or ``other shape``"""
    error: float
    """Norm of the error relative to that of the output"""
    gradient_error: float | None = None
    """The largest of the relative errors at q, k and v, where there was a backward pass"""


class Pace:
    """How long a computation takes by length: at most with the square, from what it has taken when
    nothing held it up.
    """

    def __init__(self) -> None:
        self._rate = float("inf")

    def took(self, length: int, seconds: float) -> None:
        """Take note."""
        self._rate = min(self._rate, seconds / length**2)

    def expected(self, length: int) -> float:
        """Seconds."""
        return self._rate * length**2


class Judge:
    """Holds timed calls of one candidate to its reference."""

    def __init__(
        self,
        candidate: Attention,
        build: Callable[[], Attention],
        order: random.Random,
        patience: float = _PATIENCE,
    ) -> None:
        """Prepare.

        Args:
            candidate: the module that is timed.
            build: makes its like with the same parameters; that one is never timed, and is called
                in float64.
            order: for the places that are looked at.
            patience: seconds that one comparison may be expected to take.

        Raises:
            ContractError: building it again gives other parameters.
        """
        self._candidate, self._order, self._patience = candidate, order, patience
        self._exact = build().double().eval()
        other = self._exact.state_dict()
        for name, value in candidate.state_dict().items():
            if name not in other or not torch.equal(value.double(), other[name].double()):
                raise ContractError(f"building it twice from one seed gives another {name}")
        self.has_reference = type(candidate).reference is not Attention.reference
        self._whole, self._rows = Pace(), Pace()
        self._gives_rows, self._used_rows, self._probed = False, False, 0
        if self.has_reference:
            self._probe(_PROBE, batch=1)

    def check(self, witness: Witness, decoding: bool = False, patient: bool = False) -> Verdict:
        """Compare.

        Args:
            witness: a timed call.
            decoding: whether it decoded.
            patient: whether the reference is waited for however long it takes; a busy machine must
                not decide on how closely a call is looked at.

        Raises:
            ContractError: the output, or a gradient, is not what the reference says; or it was
                changed after the call had returned.
        """
        # What holds NaN from the start is wrong, but has not changed.
        if not torch.allclose(witness.out, witness.snapshot, rtol=0, atol=0, equal_nan=True):
            raise ContractError("writes to its output after it has returned it; not timed")
        inputs, out = witness.inputs, witness.snapshot
        want = (*inputs.q.shape[:-1], inputs.v.shape[-1])
        if tuple(out.shape) != want:
            raise ContractError(f"output has shape {tuple(out.shape)}, not {want}")
        tolerance = TOLERANCE[out.dtype]
        how, error = self._difference(inputs, out, decoding, patient)
        if not error <= tolerance and self._used_rows:
            self._gives_rows = False
            how, error = self._difference(inputs, out, decoding, patient=True)
        if not error <= tolerance:
            raise ContractError(
                f"output differs from the {how} by {error:.1e} of its size at {want[-2]} queries; "
                "not timed"
            )
        gradient_error = None
        affords_gradient = patient or 4 * self._whole.expected(want[-2]) <= self._patience
        if inputs.gradient is not None and how == "reference" and affords_gradient:
            gradient_error = self._gradients(inputs)
            # A gradient passes through about twice as many roundings as the output.
            if not gradient_error <= 4 * tolerance:
                raise ContractError(
                    f"gradients differ from the reference's by {gradient_error:.1e} of their size "
                    f"at {want[-2]} queries; not timed"
                )
        return Verdict(how, error, gradient_error)

    def _difference(
        self, inputs: Inputs, out: Tensor, decoding: bool, patient: bool
    ) -> tuple[str, float]:
        """How the output was compared, and the largest relative error."""
        self._used_rows = False
        if decoding:
            how, pairs = self._decoded(inputs, out)
        else:
            how, pairs = self._compared(inputs, out, patient)
        return how, max((_relative(a, b) for a, b in pairs), default=0.0)

    def _compared(
        self, inputs: Inputs, out: Tensor, patient: bool
    ) -> tuple[str, list[tuple[Tensor, Tensor]]]:
        """How, and pairs of an output and what it should be."""
        pattern = self._candidate.pattern
        length = inputs.q.shape[-2]
        if (patient and self.has_reference) or self._affords(self._whole, inputs):
            return "reference", [(out, self._reference(inputs, self._whole))]
        if self._gives_rows and self._affords(self._rows, inputs):
            self._used_rows = True
            pairs = []
            for end in (length, self._order.randint(min(_ROWS, length), length)):
                # In noncausal self attention the queries of a call stand at the end of the keys.
                if pattern is Pattern.NONCAUSAL_SELF and end != length:
                    continue
                rows = slice(max(0, end - _ROWS), end)
                part = _queries(inputs, rows)
                if pattern is Pattern.CAUSAL_SELF:
                    part = _keys(part, end)
                pairs.append((out[..., rows, :], self._reference(part, self._rows)))
            return "reference (some rows)", pairs
        if self.has_reference and pattern is Pattern.CAUSAL_SELF:
            end = length
            while end > _PROBE and self._whole.expected(end) > self._patience:
                end //= 2
            part = _keys(_queries(inputs, slice(0, end)), end)
            return "reference (a prefix)", [(out[..., :end, :], self._reference(part, self._whole))]
        return "other shape", [self._in_another_shape(inputs, out)]

    def _in_another_shape(self, inputs: Inputs, out: Tensor) -> tuple[Tensor, Tensor]:
        """The candidate's own output on the same inputs, cut short or with a masked token more."""
        pattern, length = self._candidate.pattern, inputs.q.shape[-2]
        with torch.no_grad():
            if pattern.causal:
                end = self._order.randint(1, max(1, length - 1))
                part = _queries(inputs, slice(0, end))
                if not pattern.cross:
                    part = _keys(part, end)
                again = self._candidate(part.q, part.k, part.v, part.context)
                return out[..., :end, :], again
            part = _with_masked_token(inputs, self_attention=not pattern.cross)
            again = self._candidate(part.q, part.k, part.v, part.context)
            return out, again[..., :length, :]

    def _decoded(self, inputs: Inputs, out: Tensor) -> tuple[str, list[tuple[Tensor, Tensor]]]:
        """Tokens of a decoding call are the last rows of attention to all keys up to each."""
        count, length = out.shape[-2], inputs.k.shape[-2]
        if self._gives_rows and self._affords(self._rows, inputs):
            self._used_rows = True
            return "reference", [(out, self._reference(inputs, self._rows))]
        if self._candidate.pattern.cross:
            with torch.no_grad():
                again = self._candidate(inputs.q, inputs.k, inputs.v, inputs.context)
            return "parallel form", [(out, again)]
        # The whole sequence, with any queries in the place of those that decoding never had.
        past = inputs.k[..., : length - count, :]
        layer = inputs.context.key_input
        whole = replace(
            inputs,
            q=torch.cat([past, inputs.q], dim=-2),
            context=AttentionContext(query_input=layer, key_input=layer),
        )
        if self._affords(self._whole, whole):
            return "reference", [(out, self._reference(whole, self._whole)[..., -count:, :])]
        with torch.no_grad():
            again = self._candidate(whole.q, whole.k, whole.v, whole.context)
        return "parallel form", [(out, again[..., -count:, :])]

    def _affords(self, pace: Pace, inputs: Inputs) -> bool:
        """Whether a reference can be had in time; what is not known is found out step by step."""
        if not self.has_reference:
            return False
        length = max(inputs.q.shape[-2], inputs.k.shape[-2])
        batch, asked = inputs.q.shape[0], self._probed * _STEP
        while asked < length and pace.expected(length) > self._patience:
            if pace.expected(asked) > self._patience:
                break
            self._probe(asked, batch)
            asked = self._probed * _STEP
        return pace.expected(length) <= self._patience

    def _reference(self, inputs: Inputs, pace: Pace) -> Tensor:
        began = perf_counter()
        with torch.no_grad(), _one_thread():
            exact = _map(inputs, lambda x: x.detach().double())
            out = self._exact.reference(exact.q, exact.k, exact.v, exact.context)
        if out.is_cuda:
            torch.cuda.synchronize()
        pace.took(max(inputs.q.shape[-2], inputs.k.shape[-2]), perf_counter() - began)
        return out

    def _gradients(self, inputs: Inputs) -> float:
        exact = _map(inputs, lambda x: x.detach().double())
        leaves = [x.requires_grad_() for x in (exact.q, exact.k, exact.v)]
        with _one_thread():
            out = self._exact.reference(exact.q, exact.k, exact.v, exact.context)
            if not out.requires_grad or inputs.gradient is None:
                return 0.0
            want = torch.autograd.grad(out, leaves, inputs.gradient.double(), allow_unused=True)
        worst = 0.0
        scale = max((w.norm().item() for w in want if w is not None), default=0.0)
        for got, exactly in zip(inputs.gradients(), want, strict=True):
            a = torch.zeros_like(inputs.q) if got is None else got
            b = torch.zeros_like(a).double() if exactly is None else exactly
            # Relative to the largest of the three: one of them may be next to nothing.
            worst = max(worst, ((a.double() - b).norm() / max(scale, 1e-30)).item())
        return worst

    def _probe(self, length: int, batch: int) -> None:
        """Find out how long the reference takes, and whether that of the last queries alone is the
        last rows of the whole.
        """
        spec = self._candidate.spec
        state = [*self._exact.parameters(), *self._exact.buffers()]
        device = state[0].device if state else torch.device("cpu")
        generator = torch.Generator(device=device).manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device, dtype=torch.float64)

        q, k, v = (draw(batch, spec.heads, length, spec.head_dim) for _ in range(3))
        context = AttentionContext()
        if spec.embed_dim is not None:
            own = draw(batch, length, spec.embed_dim)
            other = draw(batch, length, spec.embed_dim) if spec.pattern.cross else own
            context = AttentionContext(query_input=own, key_input=other)
        whole = Inputs(q, k, v, context)
        rows = slice(length - _ROWS, length)
        first, self._probed = not self._probed, length
        want = None
        if first or self._whole.expected(length) <= self._patience:
            want = self._reference(whole, self._whole)[..., rows, :]
        try:
            got = self._reference(_queries(whole, rows), self._rows)
        except Exception:  # a reference is not asked to take fewer queries than keys
            self._rows.took(length, 0.0)
            self._gives_rows = False
        else:
            if want is not None:
                same = got.shape == want.shape and _relative(got, want) <= 1e-9
                self._gives_rows = same and (first or self._gives_rows)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A reference is many small steps, and threads wait for each other at the end of each: beside a
    busy neighbour two of them take up to a hundred times as long as one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _relative(got: Tensor, want: Tensor) -> float:
    want = want.double()
    difference = (got.double() - want).norm()
    if not want.numel():
        return 0.0
    scale = want.norm()
    return (difference / scale).item() if scale else difference.item()


def _map(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    c = inputs.context
    own = None if c.query_input is None else change(c.query_input)
    same = c.key_input is c.query_input
    other = own if same else None if c.key_input is None else change(c.key_input)
    context = replace(c, query_input=own, key_input=other)
    return Inputs(change(inputs.q), change(inputs.k), change(inputs.v), context, inputs.gradient)


def _queries(inputs: Inputs, rows: slice) -> Inputs:
    """Some of the queries, with their layer inputs and places."""
    c = inputs.context
    own = None if c.query_input is None else c.query_input[:, rows]
    positions = c.query_positions
    if positions is None:
        positions = torch.arange(inputs.q.shape[-2], device=inputs.q.device)
    context = replace(c, query_input=own, query_positions=positions[rows])
    return replace(inputs, q=inputs.q[..., rows, :], context=context)


def _keys(inputs: Inputs, end: int) -> Inputs:
    """The first keys alone."""
    c = inputs.context
    layer = None if c.key_input is None else c.key_input[:, :end]
    context = replace(c, key_input=layer)
    return replace(inputs, k=inputs.k[..., :end, :], v=inputs.v[..., :end, :], context=context)


def _with_masked_token(inputs: Inputs, self_attention: bool) -> Inputs:
    """One key more that nobody may see, and in self attention a query with it."""
    c = inputs.context

    def longer(x: Tensor) -> Tensor:
        return torch.cat([x, x[..., :1, :]], dim=-2)

    mask = torch.ones(
        inputs.k.shape[0], inputs.k.shape[-2], dtype=torch.bool, device=inputs.k.device
    )
    mask = F.pad(mask, (0, 1), value=False)
    layer = None if c.key_input is None else longer(c.key_input)
    own = layer if self_attention and c.query_input is not None else c.query_input
    context = AttentionContext(
        query_mask=mask if self_attention else None,
        key_mask=mask,
        query_input=own,
        key_input=layer,
    )
    q = longer(inputs.q) if self_attention else inputs.q
    return Inputs(q, longer(inputs.k), longer(inputs.v), context)
