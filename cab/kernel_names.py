"""Names of torch's own kernels, and of what is compiled, wherever an attention is named for timing.

The kernels are no entries of the registry: all of them are softmax attention.
"""

from __future__ import annotations

from cab.errors import UnknownEntryError

_PLACE = "attentions.shared.torch_kernels"
KERNELS = {
    "sdpa:flash": f"{_PLACE}:FlashKernel",
    "sdpa:efficient": f"{_PLACE}:EfficientKernel",
    "sdpa:math": f"{_PLACE}:MathKernel",
    "sdpa:cudnn": f"{_PLACE}:CudnnKernel",
    "flex": f"{_PLACE}:FlexKernel",
}
"""Where the class of a kernel lies, by the name that users give"""

COMPILED = "+compile"
"""Ends the name of an attention that was measured as `torch.compile` makes it"""


def of_kernel(name: str) -> str:
    """The place of a kernel's class; any other name as it is.

    Raises:
        UnknownEntryError: a backend of SDPA that torch does not have.
    """
    if name.startswith("sdpa:") and name not in KERNELS:
        raise UnknownEntryError("SDPA backend", name, KERNELS)
    return KERNELS.get(name, name)


def as_written(attention: str) -> str:
    """The id of an attention without the word that says that it was compiled."""
    return attention.removesuffix(COMPILED)
