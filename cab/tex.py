"""Text from anywhere as LaTeX, in which nothing acts.

What comes out needs no package, and every engine takes it: characters that the usual fonts lack are
spelled as their code points.
"""

from __future__ import annotations

import re
import unicodedata

_ASCII = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"$\sim$", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': "''",
    # After the end of a row these are read as its arguments.
    "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip
_BEYOND = {
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "±": r"$\pm$",
    "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
    "∞": r"$\infty$", "√": r"$\surd$", "−": r"$-$", "–": "--", "—": "---", "…": r"\dots{}",
    "‘": "`", "’": "'", "“": "``", "”": "''", "°": r"$^\circ$", "²": "$^2$", "³": "$^3$",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "œ": r"\oe{}",
    "Œ": r"\OE{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
    "\N{MICRO SIGN}": r"$\mu$", "\N{NO-BREAK SPACE}": "~",
    **{c: rf"$\{name}$" for c, name in {
        "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta",
        "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi",
        "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi", "χ": "chi", "ψ": "psi",
        "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Π": "Pi",
        "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
    }.items()},
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
"""Combining marks, and the command that puts them on a letter"""
_JOINING = frozenset("-',")
"""Two of a kind become another character"""
_SIGNED = re.compile(r"(?<![\w.\-])-(?=\.?\d)")


def escaped(text: str) -> str:
    """Text in which nothing is a command; white space is single blanks."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    parts = []
    for place, character in enumerate(text):
        parts.append(_character(character))
        if character in _JOINING and text[place + 1 : place + 2] == character:
            parts.append("{}")
    return "".join(parts)


def prose(text: str) -> str:
    """Escaped text in which numbers have minus signs."""
    return "$-$".join(part_of(part) for part in _SIGNED.split(" ".join(text.split())))


def part_of(text: str) -> str:
    """As `escaped`, keeping a blank at either end: a part of a text."""
    inner = escaped(text)
    before = " " if text[:1].isspace() else ""
    after = " " if text[-1:].isspace() and inner else ""
    return before + inner + after


def _character(character: str) -> str:
    if character in _ASCII:
        return _ASCII[character]
    if character.isascii() and character.isprintable():
        return character
    if character in _BEYOND:
        return _BEYOND[character]
    parts = unicodedata.normalize("NFD", character)
    base, mark = parts[0], parts[1:]
    if base.isascii() and base.isalpha() and mark in _ACCENTS:
        base = rf"\{base}" if base in "ij" and mark != "\u0327" else base
        return rf"\{_ACCENTS[mark]}{{{base}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"
