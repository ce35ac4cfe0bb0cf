"""A claim of a paper, as the page of findings shows it."""

from __future__ import annotations

from dataclasses import dataclass

from expectations import Expectation


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim on one task and pattern."""

    title: str
    source: str
    claim: str
    task: str
    pattern: str
    entries: tuple[str, ...]
    metrics: tuple[str, ...]
    """Columns of the table"""
    expectations: tuple[Expectation, ...]
    references: tuple[str, ...] = ()
    """Of the task, with an @ before each"""
    remark: str = ""

    def command(self) -> str:
        """What measures it."""
        wanted = [entry for entry in self.entries if entry != "none"]
        attentions = " ".join(f"--attn {entry}" for entry in wanted)
        return f"cab run {attentions} --pattern {self.pattern} --task {self.task} --measure quality"
