"""Torch's kernels by name compute what the entry softmax does, or refuse."""

import pytest
import torch

from attentions.shared.torch_kernels import CudnnKernel, FlashKernel, FlexKernel, MathKernel
from attentions.softmax import SoftmaxAttention
from cab import AttentionContext, AttentionSpec, Pattern

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    # Of torch's compiler, which FlexAttention imports.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
]

HEADS, DIM = 2, 16


def tensors(length_q, length_k):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, HEADS, n, DIM) for n in (length_q, length_k, length_k))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def built(kernel, pattern):
    return kernel(AttentionSpec(pattern, HEADS, DIM))


@pytest.mark.parametrize("kernel", [FlashKernel, MathKernel, FlexKernel])
@pytest.mark.parametrize("pattern", Pattern)
def test_they_are_softmax_attention(kernel, pattern):
    q, k, v = tensors(40, 72 if pattern.cross else 40)
    want = built(SoftmaxAttention, pattern).reference(q, k, v)
    # What is compiled takes half a minute to say the same.
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        torch.testing.assert_close(built(kernel, pattern)(q, k, v), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [FlashKernel, MathKernel, FlexKernel])
def test_a_step_is_the_last_row(kernel):
    q, k, v = tensors(33, 33)
    module = built(kernel, Pattern.CAUSAL_SELF)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        whole = module(q, k, v)
        state = module.prefill(k[:, :, :-1], v[:, :, :-1])
        row, _ = module.step(q[:, :, -1:], k[:, :, -1:], v[:, :, -1:], state)
    torch.testing.assert_close(row, whole[:, :, -1:], atol=1e-5, rtol=1e-5)


def test_flex_refuses_what_it_is_not_timed_with():
    q, k, v = tensors(8, 12)
    with pytest.raises(NotImplementedError, match="as many queries"):
        built(FlexKernel, Pattern.CAUSAL_SELF)(q, k, v)
    masked = AttentionContext(key_mask=torch.ones(2, 12, dtype=torch.bool))
    with pytest.raises(NotImplementedError, match="masks"):
        built(FlexKernel, Pattern.CAUSAL_CROSS)(q, k, v, masked)


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuDNN is there")
def test_a_kernel_that_torch_does_not_have_here_refuses():
    with pytest.raises(RuntimeError):
        built(CudnnKernel, Pattern.NONCAUSAL_SELF)(*tensors(8, 8))
