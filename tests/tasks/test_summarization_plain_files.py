"""Summarisation from a folder of plain files, as Multi-News is published."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from cab.errors import DataError
from tasks.summarization.anonymised_words import AnonymisedWords
from tasks.summarization.plain_files import SEPARATOR, hash_plain_files, read_pairs
from tasks.summarization.task import Summarization


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def folder_of(path: Path, lines: int = 40) -> Path:
    for stem in ("train", "val", "test"):
        sources = [
            f"Report {i} : Ann{i} met Bob{i} at the lake . ||||| More." for i in range(lines)
        ]
        (path / f"{stem}.src").write_text("\n".join(sources) + "\n", encoding="utf-8")
        summaries = [f"Ann{i} met Bob{i} ." for i in range(lines)]
        (path / f"{stem}.tgt").write_text("\n".join(summaries) + "\n", encoding="utf-8")
    return path


def test_plain_files_are_read_and_trained_on(tmp_path: Path) -> None:
    task = Summarization(Pattern.CAUSAL_SELF, Scale.TINY, folder_of(tmp_path))
    assert task.dataset == tmp_path.name
    assert {split: len(corpus) for split, corpus in task.representation.corpora.items()} == {
        "train": 40,
        "validation": 40,
        "test": 40,
    }
    torch.manual_seed(0)
    model = task.build(Slots(task.pattern, SoftmaxAttention, SoftmaxAttention))
    assert math.isfinite(task.loss(model, task.training_batch(generator())).item())
    with torch.no_grad():
        assert set(task.evaluate(model.eval(), "test", 0)) >= {"nll", "rouge_l"}
    before = task.data_hash
    (tmp_path / "val.tgt").write_text("other\n" * 40, encoding="utf-8")
    assert hash_plain_files(tmp_path) != before


def test_blank_pairs_are_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path, lines=3)
    (tmp_path / "train.src").write_text("a b c d\n\ne\u2028f g h\n", encoding="utf-8")
    pairs = list(read_pairs(tmp_path, "train"))
    assert [pair.source for pair in pairs] == ["a b c d", "e\u2028f g h"]
    assert [pair.target for pair in pairs] == ["Ann0 met Bob0 .", "Ann2 met Bob2 ."]


def test_the_marks_of_both_releases_are_read(tmp_path: Path) -> None:
    folder_of(tmp_path, lines=2)
    (tmp_path / "train.src.cleaned").write_text(
        "One . NEWLINE_CHAR Two . ||||| Three .\n"
        "One . NEWLINE_CHAR Two . story_separator_special_tag Three .\n",
        encoding="utf-8",
    )
    first, second = read_pairs(tmp_path, "train")
    assert first.source == second.source == f"One . \n Two . {SEPARATOR} Three ."
    (tmp_path / "train.src").unlink()
    assert not Summarization.data_problems(tmp_path)


def test_documents_are_cut_and_separators_are_one_word(tmp_path: Path) -> None:
    folder_of(tmp_path, lines=3)
    (tmp_path / "test.src").write_text(f"one ||||| two\n{'so ' * 300}\nb\n", encoding="utf-8")
    task = Summarization(Pattern.CAUSAL_CROSS, Scale.TINY, tmp_path)
    assert isinstance(task.representation, AnonymisedWords)
    lengths = [
        len(found.source["document"]) for found in task.representation.corpora["test"].encoded
    ]
    assert lengths == [3, 128, 1]


@pytest.mark.parametrize("name", ["train.src", "val.tgt", "test.src"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (folder_of(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing; expected .*train\.src") as caught:
        Summarization(Pattern.CAUSAL_CROSS, Scale.TINY, tmp_path)
    assert "\n" not in str(caught.value)


def test_unequal_line_counts_are_named(tmp_path: Path) -> None:
    with (folder_of(tmp_path) / "val.tgt").open("a", encoding="utf-8") as file:
        file.write("one more\n")
    with pytest.raises(DataError, match=r"val\.src has 40 lines but val\.tgt has 41"):
        Summarization(Pattern.CAUSAL_CROSS, Scale.TINY, tmp_path)


def test_other_damage_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "train.src").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"train\.src is not UTF-8"):
        Summarization(Pattern.CAUSAL_CROSS, Scale.TINY, tmp_path)
    for suffix in ("src", "tgt"):
        (tmp_path / f"train.{suffix}").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="hold no pair"):
        Summarization(Pattern.CAUSAL_CROSS, Scale.TINY, tmp_path)
    with pytest.raises(DataError, match=r"train\.src is missing"):
        Summarization(Pattern.CAUSAL_CROSS, Scale.TINY, tmp_path / "nowhere")


def test_every_problem_is_listed(tmp_path: Path) -> None:
    folder_of(tmp_path, lines=2)
    assert Summarization.data_problems(tmp_path) == []
    (tmp_path / "train.src").write_bytes(b"caf\xe9\n")
    (tmp_path / "train.tgt").unlink()
    (tmp_path / "val.tgt").write_text("one\n", encoding="utf-8")
    for suffix in ("src", "tgt"):
        (tmp_path / f"test.{suffix}").write_text("\n", encoding="utf-8")
    (tmp_path / "merges.txt").write_text("a b\n", encoding="utf-8")
    problems = Summarization.data_problems(tmp_path)
    expected = (
        r"train\.src is not UTF-8",
        r"train\.tgt is missing",
        r"val\.src has 2 lines but val\.tgt has 1",
        r"test\.src and test\.tgt hold no pair",
        r"vocab\.json is missing",
    )
    assert len(problems) == len(expected)
    for problem, pattern in zip(problems, expected, strict=True):
        assert re.search(pattern, problem), problem
        assert "\n" not in problem
