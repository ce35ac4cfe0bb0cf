"""ROUGE-1, ROUGE-2 and ROUGE-L by Google's package ``rouge-score``, as CAB reports them.

CAB calls ROUGE 1.5.5 with Porter's stemmer, one sentence a line, so that its ROUGE-L is the
summary-level one: the union of longest common subsequences over sentences (Lin 2004, section 3.2).
It cuts sentences with a model that NLTK downloads; here a full stop, question or exclamation mark
before white space ends one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NAMES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeLsum"}

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def rouge(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F1 in percent, by ``rouge_1``, ``rouge_2`` and ``rouge_l``."""
    # It imports NLTK, which takes a second: only who measures pays.
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(_NAMES.values()), use_stemmer=True)
    scores = [
        scorer.score(_lines(reference), _lines(output))
        for output, reference in zip(outputs, references, strict=True)
    ]
    return {
        name: 100 * sum(score[key].fmeasure for score in scores) / len(scores)
        for name, key in _NAMES.items()
    }


def _lines(text: str) -> str:
    """One sentence a line."""
    return _SENTENCE_END.sub("\n", text.strip())
