"""The figures of a page in their order: each stands in the page, and can be written as a file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cab.report.figure import Figure, Words


@dataclass
class Album:
    """Collects figures under names that differ."""

    figures: list[Figure] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def add(self, drawing: str, words: Words) -> str:
        """The element of a drawing for the page; nothing for no drawing."""
        if not drawing:
            return ""
        name, number = words.name, 1
        while name in self._taken:
            number += 1
            name = f"{words.name}-{number}"
        self._taken.add(name)
        figure = Figure.of(drawing, replace(words, name=name))
        self.figures.append(figure)
        return f'<figure id="{name}">{figure.svg}</figure>'
