"""What a reader must know of hybrids: in stacks that are shorter than their cycle the parts have
other shares than the name says.
"""

from __future__ import annotations

from collections.abc import Collection

from cab.hybrids.placement import SLOTS_OF, in_words
from cab.scoring.results import Results
from cab.track import Track


def hybrid_notes(results: Results, track: Track, tasks: Collection[str]) -> list[str]:
    """``lla:1,linear-elu:3: 1 lla, 1 linear-elu in the slots of language-modeling, tts``, of those
    of some tasks.
    """
    rows = results.select(track, kind="quality", phase="analysis")
    metrics = rows["metric"].astype(object)
    rows = rows[metrics.str.startswith(SLOTS_OF) & rows["task"].isin(list(tasks))]
    places: dict[tuple[str, str], list[str]] = {}
    for (entry, task), own in rows.groupby(["entry", "task"], observed=True):
        # Every seed has the same; the parts come in the order of the name.
        counts = {
            str(metric).removeprefix(SLOTS_OF): round(number)
            for metric, number in zip(own["metric"], own["value"].astype(float), strict=True)
        }
        places.setdefault((str(entry), in_words(counts)), []).append(str(task))
    return [
        f"{entry}: {words} in the slots of {', '.join(names)}"
        for (entry, words), names in places.items()
    ]
