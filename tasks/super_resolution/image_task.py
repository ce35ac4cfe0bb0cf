"""What both super-resolution tasks share: pictures, augmentation, scores and samples.

A model sees a picture that was shrunk and enlarged again by the bicubic filter, and gives the
picture back. Signals are -1..1; what is scored are the 8-bit pictures.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from cab import Artifact, Batch, Pattern, Scale, Task, seeds
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.evaluation import device_of
from tasks.super_resolution.fidelity import psnr, ssim
from tasks.super_resolution.image_folders import folder_problems, hash_folders, read_folders
from tasks.super_resolution.picture_sets import Sizes, embedded_pictures, hash_embedded
from tasks.super_resolution.resampling import enlarged, to_pictures, to_signal

_EVALUATION_PIXELS = 64 * 32**2
"""Of the pictures that are restored at a time: plain softmax attention over all pixels of four
pictures of 128 pixels a side takes gigabytes"""

_SHOWN = 6
_PART = 8
"""A witness looks at every so manyth picture"""
_SHOWN_SIDE = 96
"""Of a picture among the samples, at least, in screen pixels"""
_MOST_PIXELS = 80_000
"""Of one sample file before zooming: even noise then stays below the size of an artifact"""


class ImageTask(Task):
    """Enlarge pictures."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.sizes = self.sizes_at(scale)
        self.pictures = (
            embedded_pictures(self.sizes)
            if data_dir is None
            else read_folders(data_dir, self.sizes)
        )

    @classmethod
    @abstractmethod
    def sizes_at(cls, scale: Scale) -> Sizes:
        """Of the pictures."""

    @abstractmethod
    def restore(self, model: nn.Module, given: Tensor, generator: torch.Generator) -> Tensor:
        """The restored signals of enlarged ones, (B, 3, S, S) each.

        All randomness comes from ``generator``, on the CPU.
        """

    @classmethod
    def data_problems(cls, data_dir: Path) -> list[str]:
        """See `cab.Task.data_problems`; opens every picture that the largest scale uses."""
        return list(folder_problems(data_dir, cls.sizes_at(cls.info.scales[-1])))

    @property
    def data_hash(self) -> str:
        """See `cab.Task.data_hash`; of folders, over the names and sizes of the files."""
        return hash_embedded() if self.data_dir is None else hash_folders(self.data_dir)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Random pictures, turned and mirrored at random; ``given`` and ``wanted`` are signals.

        Faces are only mirrored: nobody asks for them upside down.
        """
        train = self.pictures["train"]
        rows = torch.randint(len(train), (self.recipe.batch_size,), generator=generator)
        drawn = train[rows]
        coins = torch.rand(3, len(rows), 1, 1, 1, generator=generator) < 0.5
        drawn = torch.where(coins[0], drawn.flip(-1), drawn)
        if self.data_dir is None:
            drawn = torch.where(coins[1], drawn.flip(-2), drawn)
            drawn = torch.where(coins[2], drawn.transpose(-1, -2), drawn)
        return {"given": to_signal(enlarged(drawn, self.sizes.low)), "wanted": to_signal(drawn)}

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Means over the pictures of a split."""
        generator = seeds.evaluation(seed, split)
        device = device_of(model)
        scores: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "psnr_gain": []}
        count = len(self.pictures[split])
        for rows in torch.arange(count).split(_EVALUATION_PIXELS // self.sizes.high**2):
            truth = self.pictures[split][rows]
            given = enlarged(truth, self.sizes.low)
            restored = self.restore(model, to_signal(given).to(device), generator)
            output = to_pictures(restored).cpu()
            ratio = psnr(output, truth)
            scores["psnr"].append(ratio)
            scores["ssim"].append(ssim(output, truth))
            scores["psnr_gain"].append(ratio - psnr(given, truth))
        return {name: torch.cat(values).mean().item() for name, values in scores.items()}

    def reduced(self) -> Self:
        """See `cab.Task.reduced`; similarity of structure takes its time."""
        part = copy.copy(self)
        part.pictures = {
            split: held[torch.arange(0, len(held), _PART)] for split, held in self.pictures.items()
        }
        return part

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test pictures: enlarged, restored and true ones, in three rows."""
        test, side = self.pictures["test"], self.sizes.high
        shown = min(_SHOWN, len(test))
        # The middle of each part: the first crop of a photograph is often its empty corner.
        rows = (2 * torch.arange(shown) + 1) * len(test) // (2 * shown)
        truth = test[rows]
        given = enlarged(truth, self.sizes.low)
        generator = seeds.evaluation(seed, "test", "artifacts")
        device = device_of(model)
        restored = self.restore(model, to_signal(given).to(device), generator)
        lines = torch.stack([given, to_pictures(restored).cpu(), truth]).permute(1, 0, 3, 4, 2)
        return [
            pictures.image(
                f"restored-{number + 1}",
                f"Test pictures: {self.sizes.low} pixels a side enlarged to {side} by the bicubic "
                "filter (top), the model's output, the truth.",
                pictures.grid([list(line) for line in part.transpose(0, 1).numpy()]),
                zoom=max(1, _SHOWN_SIDE // side),
            )
            for number, part in enumerate(lines.split(max(1, _MOST_PIXELS // (3 * side**2))))
        ]
