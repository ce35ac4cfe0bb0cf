"""Which entries of a table a reader asked for."""

from __future__ import annotations

from dataclasses import dataclass

from cab.label import labels_in
from cab.scoring.boards import controls, family_of


@dataclass(frozen=True)
class Shown:
    """Entries by what they are; an empty tuple chooses all. Controls, which every table is read
    against, stay whatever grade, family or label is chosen.
    """

    grades: tuple[str, ...] = ()
    """For the pattern of the table"""
    families: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """Who measured"""
    attentions: tuple[str, ...] = ()
    """Ids, controls not excepted"""

    def keeps(self, attention: str, grade: str, label: str = "") -> bool:
        """Whether an entry is shown.

        Args:
            attention: its id.
            grade: for the pattern.
            label: who measured it; several, with commas, where it has rows of several.
        """
        if self.attentions and attention not in self.attentions:
            return False
        if attention in controls():
            return True
        if self.labels and not set(self.labels) & set(labels_in(label)):
            return False
        if self.families and family_of(attention) not in self.families:
            return False
        return not self.grades or grade in self.grades

    @property
    def hides(self) -> bool:
        """Whether some entries may be out of sight."""
        return bool(self.grades or self.families or self.labels or self.attentions)


ALL = Shown()
