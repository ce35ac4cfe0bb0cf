"""Summarisation from a folder of plain files, as Multi-News is published."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from cab.errors import DataError
from tasks.summarization.plain_files import hash_plain_files, read_plain_files
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
    assert {split: len(corpus) for split, corpus in task.corpora.items()} == {
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


def test_plain_documents_are_cut_and_blank_pairs_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path, lines=3)
    (tmp_path / "train.src").write_text("a b c d\n\ne\u2028f g h\n", encoding="utf-8")
    pairs = read_plain_files(tmp_path, source_words=3, target_words=2, pairs=9)["train"]
    assert [pair.source["document"] for pair in pairs] == [["a", "b", "c"], ["e", "f", "g"]]
    assert [pair.target for pair in pairs] == [["ann0", "met"], ["ann2", "met"]]
    few = read_plain_files(tmp_path, source_words=3, target_words=2, pairs=1)
    assert [len(found) for found in few.values()] == [1, 1, 1]


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
