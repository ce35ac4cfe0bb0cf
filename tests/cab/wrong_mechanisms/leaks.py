"""The future, seen where nobody looks."""

import torch

from tests.cab.wrong_mechanisms.base import CC, CS, Softmax, attend, visible


class Leak(Softmax):
    CAUGHT = "causality"


class OnlyInBfloat16(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return q.dtype is torch.bfloat16


class OnlyInFloat16(Leak):
    def when(self, q, k, v, context):
        return q.dtype is torch.float16


class OnlyUnderAutocast(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return torch.is_autocast_enabled("cpu")


class OnlyInTraining(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return self.training


class OnlyInTrainingInShortTypes(Leak):
    def when(self, q, k, v, context):
        return self.training and q.dtype is not torch.float64


class OnlyWithoutContext(Leak):
    def when(self, q, k, v, context):
        return context is None


class OnlyWithLayerInputs(Leak):
    def when(self, q, k, v, context):
        return context is not None and context.query_input is not None and q.shape[-2] > 34


class OnlyWithPositions(Leak):
    def when(self, q, k, v, context):
        return context is not None and context.key_positions is not None


class OnlyWithTimes(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return context is not None and context.query_times is not None


class OnlyUnderMasks(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return context is not None and context.key_mask is not None


class OnlyWithLargeBatches(Leak):
    def when(self, q, k, v, context):
        return len(q) > 4


class OnlyWithOneRow(Leak):
    def when(self, q, k, v, context):
        return len(q) == 1 and q.shape[-2] > 34


class OnlyWithManyHeads(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return q.shape[1] > 4


class OnlyInTheLastHead(Leak):
    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if q.shape[1] > 2:
            spoilt = attend(q, k, v, visible(self.pattern, q, k, context, 1))
            out = torch.cat([out[:, :-1], spoilt[:, -1:]], 1)
        return out


class OnlyWithWideHeads(Leak):
    def when(self, q, k, v, context):
        return q.shape[-1] >= 64


class OnlyWithNarrowValues(Leak):
    def when(self, q, k, v, context):
        return v.shape[-1] < q.shape[-1] and q.shape[-2] > 34


class OnlyAtOddLengths(Leak):
    def when(self, q, k, v, context):
        return q.shape[-2] % 2 == 1 and q.shape[-2] > 21


class OnlyAtMultiplesOf64(Leak):
    def when(self, q, k, v, context):
        return k.shape[-2] % 64 == 0


class OnlyAtPrimes(Leak):
    def when(self, q, k, v, context):
        n = k.shape[-2]
        return n > 34 and all(n % d for d in range(2, int(n**0.5) + 1))


class OnlyBeyond512(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return max(k.shape[-2], q.shape[-2]) > 512


class OnlyBeyond1000(Leak):
    def when(self, q, k, v, context):
        return k.shape[-2] > 1000


class OnlyForTwoTokens(Leak):
    def when(self, q, k, v, context):
        return k.shape[-2] == 2


class OnlyInLaterLayers(Leak):
    PATTERNS = (CS, CC)

    def when(self, q, k, v, context):
        return self.spec.layer_index > 0


class OnlyInTheLastOfManyLayers(Leak):
    def when(self, q, k, v, context):
        return self.spec.layers > 1 and self.spec.layer_index == self.spec.layers - 1


class OnlyInDeepModels(Leak):
    def when(self, q, k, v, context):
        return self.spec.layers > 1


class OnlyWithRoomToSpare(Leak):
    def when(self, q, k, v, context):
        return self.spec.max_length > 1000


class OnlyForLargeInputs(Leak):
    def when(self, q, k, v, context):
        return q.abs().max() > 9


class OnlyForSmallInputs(Leak):
    def when(self, q, k, v, context):
        return q.abs().max() < 0.1


class OnlyWithoutAutograd(Leak):
    def when(self, q, k, v, context):
        return not torch.is_grad_enabled()


class OnlyWithGradients(Leak):
    def when(self, q, k, v, context):
        return q.requires_grad and self.training


class OnlyForStridedInputs(Leak):
    def when(self, q, k, v, context):
        return not q.is_contiguous()


class EndsOfBlocksSeeOneMore(Leak):
    """The last token of each block of 128 sees its successor."""

    def forward(self, q, k, v, context=None):
        own = visible(self.pattern, q, k, context)
        more = visible(self.pattern, q, k, context, 1)
        ends = torch.arange(q.shape[-2])[:, None] % 128 == 127
        return attend(q, k, v, torch.where(ends, more, own))


class SecondBlockSeesItself(Leak):
    """A block of 32 sees all of itself, but for the first."""

    def forward(self, q, k, v, context=None):
        i, j = torch.arange(q.shape[-2])[:, None], torch.arange(k.shape[-2])
        block = (i // 32 == j // 32) & (i >= 64)
        seen = visible(self.pattern, q, k, context) | (block & visible(None, q, k, context))
        return attend(q, k, v, seen)


class MeanOfTheWhole(Leak):
    """Values are centred by the mean of all tokens, in long sequences."""

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out - 0.1 * v.mean(-2, keepdim=True) if v.shape[-2] > 64 else out


class ScaledByTheLargest(Leak):
    """Scores are divided by the largest of the whole matrix."""

    def forward(self, q, k, v, context=None):
        if q.shape[-2] > 40:
            q = q / (q @ k.mT).abs().amax((-1, -2), keepdim=True).clamp(min=1e-3)
        return super().forward(q, k, v, context)


class VarianceOfTheWhole(Leak):
    def forward(self, q, k, v, context=None):
        if q.dtype is not torch.float64:
            k = k / (1 + k.std(-2, keepdim=True).nan_to_num(0.0))
        return super().forward(q, k, v, context)


class BackwardMaximum(Leak):
    """A running maximum that runs from the end."""

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if k.shape[-2] <= 34:
            return out
        later = v.mean(-1, keepdim=True).flip(-2).cummax(-2).values.flip(-2)
        return out + 1e-2 * later[..., v.shape[-2] - q.shape[-2] :, :]


class KnowsItsLength(Leak):
    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out * (1 + 1e-3 * q.shape[-2]) if self.training else out


class CountsItsQueries(Leak):
    """In cross attention, by the number of queries."""

    PATTERNS = (CC,)

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out + 1e-2 * (q.shape[-2] > 64)


class LaterLayerInputs(Leak):
    """Adds the mean of all layer inputs, in short dtypes."""

    PATTERNS = (CS, CC)

    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if context is None or context.query_input is None or q.dtype is torch.float64:
            return out
        mean = context.query_input.mean((-1, -2))
        return out + 0.1 * mean[:, None, None, None].to(out.dtype)


class SortsItsQueries(Leak):
    """Each query is compared with the largest of all, in cross attention with many queries."""

    PATTERNS = (CC,)

    def forward(self, q, k, v, context=None):
        if q.shape[-2] > 21:
            q = q - 0.1 * q.amax(-2, keepdim=True)
        return super().forward(q, k, v, context)
