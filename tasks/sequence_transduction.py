"""Sequence transduction: tasks that write tokens, one after the other, from a source of any kind.

What they share: an encoder-decoder, teacher forcing, the likelihood of the tokens, greedy decoding.
Token ids are those of `tasks.summarization.vocabulary`, the task's own from `FIRST_TOKEN` on.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch, Task
from cab.task_contract import Split
from tasks.evaluation import beside, parts
from tasks.summarization.decoding import greedy
from tasks.summarization.encoder_decoder import EncoderDecoder

FIRST_TOKEN = 4
"""Ids before it are padding, unknown, START and END"""

ROWS_AT_ONCE = 256
_PART = 8
"""Problems that a witness has decoded"""


class TransductionTask(Task):
    """An encoder-decoder whose cross slots take the candidate.

    A batch has ``source`` and ``target`` (B, T), the latter from START on, padding behind.
    """

    decoded: int
    """Test problems, spread over the split, that are decoded"""

    @property
    @abstractmethod
    def written(self) -> tuple[int, int]:
        """Least and most tokens that are written, END among them; equal where all outputs have one
        length and no END.
        """

    @abstractmethod
    def problems(self, split: Split, seed: int) -> Batch:
        """What a split is evaluated on, as one batch.

        Args:
            split: validation or test.
            seed: as in `cab.Task.evaluate`.
        """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy of the target tokens."""
        scores, wanted = model(batch)
        return F.cross_entropy(scores, wanted)

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("target",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T - 1, V) scores of the token after each of the target's."""
        assert isinstance(model, EncoderDecoder)
        return model.logits(model.decode(batch["target"][:, :-1], *model.encode(batch)))

    def reduced(self) -> Self:
        """See `cab.Task.reduced`; decoding token by token takes its time."""
        part = copy.copy(self)
        part.decoded = min(self.decoded, _PART)
        return part

    def decoded_problems(self, seed: int, most: int | None = None) -> Batch:
        """The test problems that are decoded, or ``most`` of them."""
        problems = self.problems("test", seed)
        count = len(problems["target"])
        wanted = min(self.decoded if most is None else most, count)
        rows = torch.linspace(0, count - 1, wanted, dtype=torch.float64).round().long()
        return {name: tensor[rows] for name, tensor in problems.items()}

    def outputs(self, model: nn.Module, batch: Batch) -> list[list[int]]:
        """Greedy outputs, as token ids without END."""
        assert isinstance(model, EncoderDecoder)
        shortest, longest = self.written
        return [
            row
            for part in parts(batch, ROWS_AT_ONCE)
            for row in greedy(model, beside(model, part), longest, shortest)
        ]


def token_losses(model: nn.Module, batch: Batch) -> Tensor:
    """(N,) negative log-likelihood in nats of every target token of a batch, teacher-forced."""
    losses = []
    for part in parts(batch, ROWS_AT_ONCE):
        scores, wanted = model(beside(model, part))
        losses.append(F.cross_entropy(scores.float(), wanted, reduction="none").double().cpu())
    return torch.cat(losses)


def target_tokens(batch: Batch) -> list[list[int]]:
    """What should have been written, as `TransductionTask.outputs` gives it."""
    rows: list[list[int]] = batch["target"][:, 1:].tolist()
    return [[token for token in row if token >= FIRST_TOKEN] for row in rows]


def character_error_rate(outputs: Iterable[str], targets: Iterable[str]) -> float:
    """Edit distance over the number of target characters, both summed, in percent."""
    # Loading torchmetrics takes most of a second, which listings need not wait for.
    from torchmetrics.functional.text import char_error_rate

    return 100 * char_error_rate(list(outputs), list(targets)).item()
