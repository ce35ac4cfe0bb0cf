"""All analyses of one trained model, as named numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Attention, Task, seeds
from cab.analysis import Analysis
from cab.cost_metrics import DENSITY
from runners.analysis.calls import recorded
from runners.analysis.evidence import CONTRASTED, PLAIN, evidence_scores
from runners.analysis.maps import mapped, mean_statistics
from runners.analysis.perturbation import loss_rises
from runners.analysis.reads import validation_density
from runners.training import autocast, to_device

ANALYSES = (
    Analysis("attention_entropy", "nat", False),
    Analysis("attention_distance", "1", False),
    Analysis("attention_negative_mass", "1", False),
    Analysis("loss_rise_adversarial_0.1", "loss", False),
    Analysis("loss_rise_adversarial_0.5", "loss", False),
    Analysis("loss_rise_random_0.1", "loss", False),
    Analysis("loss_rise_random_0.5", "loss", False),
    Analysis(PLAIN, "1", True),
    Analysis(CONTRASTED, "1", True),
    Analysis(DENSITY, "1", False),
)


def analyse(
    task: Task, model: nn.Module, candidates: list[Attention], device: str, seed: int = 0
) -> dict[str, float]:
    """What can be said of the candidate's slots in a trained model, by name.

    Everything but the density is of one batch as training draws them, in eval mode, so without
    dropout. It is made of training data (of problems never seen, where the data are generated): it
    describes the model, and is not a score. The density is of a few validation batches.
    """
    if not candidates:
        return {}
    model.eval()
    place = torch.device(device)
    batch = to_device(task.training_batch(seeds.generator(0, "analysis")), place)

    def loss() -> Tensor:
        # A loss may draw, noise levels for example: the same every time.
        torch.manual_seed(seeds.derive(0, "analysis", "loss"))
        with autocast(place, task.recipe):
            return task.loss(model, batch)

    with torch.random.fork_rng(devices=[]):
        with torch.no_grad(), recorded(candidates) as calls:
            loss()
        with autocast(place, task.recipe):
            maps = mapped(calls)
            found = dict(mean_statistics(maps))
            evidence = task.evidence(batch)
            if evidence is not None:
                found |= evidence_scores(maps, evidence)
        found |= loss_rises(loss, candidates)
    density = validation_density(task, model, candidates, seed)
    return found if density is None else found | {DENSITY: density}
