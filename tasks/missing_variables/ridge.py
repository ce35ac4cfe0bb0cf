"""Ridge regression of all variables' futures from the histories of those that are present.

Each pattern of missing variables has a least-squares problem of its own; all of them are corners of
one Gram matrix of the training windows, so each costs no more than a solve.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.forecasting.data import Series
from tasks.missing_variables.windows import masked_windows


class RidgeForecaster:
    """Linear forecasts in closed form, float64.

    The features are the histories present, z-scored, the calendar and a constant; the penalty is
    ``penalty`` times the number of training windows, on all but the constant.
    """

    def __init__(
        self, series: Series, history: int, horizon: int, penalty: float, stride: int = 1
    ) -> None:
        """Gather the moments of all training windows, of which every ``stride``-th is taken."""
        starts = torch.arange(0, len(series) - history - horizon + 1, stride)
        present = torch.ones(len(starts), series.values.shape[1], dtype=torch.bool)
        batch = masked_windows(series, starts, present, history, horizon)
        features = _features(batch)
        target = batch["target"].double().flatten(1)
        self.history = history
        self.gram = features.T @ features
        self.moment = features.T @ target
        self.gram.diagonal()[:-1] += penalty * len(starts)

    def __call__(self, batch: Batch) -> Tensor:
        """(B, K, O) forecasts of windows that are missing the *same* variables."""
        present = batch["present"]
        if not (present == present[:1]).all():
            raise ValueError("the windows of one call must be missing the same variables")
        others = len(self.gram) - self.history * present.shape[1]
        shown = present[0].repeat_interleave(self.history)
        kept = torch.cat([shown, torch.ones(others, dtype=torch.bool)])
        weights = torch.linalg.solve(self.gram[kept][:, kept], self.moment[kept])
        forecast = _features(batch)[:, kept] @ weights
        return forecast.view(len(present), present.shape[1], -1)


def _features(batch: Batch) -> Tensor:
    """(B, K T + F + 1): histories variable by variable, the calendar, one."""
    history = batch["history"].double().flatten(1)
    return torch.cat([history, batch["calendar"].double(), history.new_ones(len(history), 1)], 1)
