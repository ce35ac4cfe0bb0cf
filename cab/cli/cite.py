"""``cab cite``: BibTeX of the suite, and of what is named or was used."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from cab.bibliography.bibtex import Entry, entry_of, to_bibtex
from cab.bibliography.papers import CAB, Paper
from cab.bibliography.records import papers_of
from cab.cli.options import require_folder
from cab.errors import DataError, UsageError
from cab.hybrids.formula import is_formula, parse
from cab.info import AttentionInfo, TaskInfo
from cab.nearby import unknown_entry
from cab.registries import ATTENTIONS, TASKS
from cab.targets import WrongKindError
from cab.version import SUITE_VERSION

SUITE_KEY, SUITE = "cab", "the suite"
_GENERATED = "generated"


def cite_command(names: Sequence[str], used: bool, out: Path, reference: bool = True) -> None:
    """Print BibTeX.

    Args:
        names: ids of attentions, tasks and data sets, ``file.py:Class`` too.
        used: whether everything is meant that the results name.
        out: the results folder.
        reference: whether the reference results count as used.

    Raises:
        UnknownEntryError: nothing has such a name.
        UsageError: there are no results to look into.
        StoreError: results cannot be read.
    """
    cited = _Cited()
    for name in names:
        cited.add(name)
    if used:
        require_folder(out)
        cited.add_used(out, reference)
    sys.stdout.write(to_bibtex(cited.entries(), cited.remarks))


@dataclass
class _Cited:
    """Papers and data sets with the names that they stand for, in the order of their mention."""

    papers: dict[Paper, list[str]] = field(default_factory=lambda: {CAB: [SUITE]})
    data: dict[str, list[str]] = field(default_factory=dict)
    commits: str = ""
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """An attention, a task with its data, or a data set.

        Raises:
            UnknownEntryError: it is none of these.
        """
        if name in _data_sets():
            self._add_data(name, name)
            return
        for info in _infos(name):
            self._add_papers(info)
            if isinstance(info, TaskInfo):
                self._add_data(info.dataset, info.id)

    def add_used(self, out: Path, reference: bool) -> None:
        """Everything that rows of a results folder name.

        Raises:
            UsageError: there are none.
        """
        from cab.result_sources import ResultSources
        from cab.scoring.origin import origin_of

        columns = ["kind", "attention", "task", "dataset", "suite_version", "git_commit",
                   "recorded_at"]  # fmt: skip
        rows = ResultSources.at(out, reference).read(columns).to_pandas()
        if rows.empty:
            raise UsageError(
                f"no results in {out}; measure some, or name what to cite: cab cite lla"
            )
        self.commits = origin_of(rows).words()
        infos: list[AttentionInfo | TaskInfo] = [*ATTENTIONS.infos(), *TASKS.infos()]
        known = {info.id: info for info in infos}
        for column in ("attention", "task"):
            for name in sorted({str(word) for word in rows[column].dropna() if word}):
                parts = [part.info for part in ATTENTIONS.parts_of(name)]
                for info in [known[name]] if name in known else parts:
                    self._add_papers(info)
                if name not in known and not parts:
                    self.remarks.append(f"{name}: in the results, and not registered here")
        for name in sorted({str(word) for word in rows["dataset"].dropna() if word}):
            self._add_data(name, "the results")

    def entries(self) -> list[Entry]:
        """The suite first, then papers, then data."""
        return [
            _suite(self.commits),
            *(entry_of(paper, dict.fromkeys(why)) for paper, why in self.papers.items()),
            *(_data_entry(name, why) for name, why in self.data.items()),
        ]

    def _add_papers(self, info: AttentionInfo | TaskInfo) -> None:
        found = papers_of(info)
        if not found:
            self.remarks.append(f"{info.id}: its record names no paper")
        for paper in found:
            self.papers.setdefault(paper, []).append(info.id)

    def _add_data(self, name: str, why: str) -> None:
        if name in _data_sets():
            self.data.setdefault(name, []).append(why)
        elif name not in ("", _GENERATED):
            self.remarks.append(f"{name}: data that does not come with cab; cite its authors")


def _infos(name: str) -> Sequence[AttentionInfo | TaskInfo]:
    """The record of an id or a target of either kind; of a hybrid those of its parts."""
    if ATTENTIONS.listed(name) is not None and not is_formula(name):
        return [ATTENTIONS.resolve(name).info]
    if name in TASKS.entries():
        return [TASKS.resolve(name).info]
    if is_formula(name):
        ATTENTIONS.resolve(name)
        return [ATTENTIONS.resolve(part.name).info for part in parse(name)]
    if ":" in name:
        try:
            return [ATTENTIONS.resolve(name).info]
        except WrongKindError:
            return [TASKS.resolve(name).info]
    known = [*ATTENTIONS.entries(), *TASKS.entries(), *_data_sets()]
    sought = [ATTENTIONS.sought, TASKS.sought]
    raise unknown_entry("attention, task or data set", name, known, sought)


def _suite(commits: str) -> Entry:
    note = f"Version {SUITE_VERSION}" + (f"; results of {commits}" if commits else "")
    fields = {
        "author": "The cab developers",
        "title": "cab: Comprehensive Attention Benchmark",
        "howpublished": "Software, Apache-2.0",
        "note": note,
    }
    return Entry("misc", SUITE_KEY, fields, (SUITE,))


def _data_sets() -> Mapping[str, Any]:
    """The manifest of the embedded data. Read by itself: who reads tables needs pyarrow, which
    takes longer to import than everything here.
    """
    file = resources.files("tasks.data") / "manifest.json"
    try:
        found: Mapping[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read; reinstall cab") from error
    return found


def _data_entry(name: str, why: Iterable[str]) -> Entry:
    about = _data_sets()[name]
    source = about["source"]
    fields = {
        "key": name,
        "title": about["title"],
        # The manifest names one package; further ones are in the command that fetches them.
        "howpublished": f"{source['package']} {source['version']}"
        + (" and others" if "&&" in source["download"] else ""),
        "note": f"{about['attribution'].rstrip('.')}. Licence: {about['licence']}. As embedded in "
        f"cab {SUITE_VERSION}, SHA-256 {about['sha256'][:16]}",
    }
    return Entry("misc", f"data-{name}", fields, tuple(dict.fromkeys(why)))
