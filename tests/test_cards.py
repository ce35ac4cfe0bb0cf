"""docs/attentions/: cards say what records and code say. `make check` keeps them current."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

import cab
from attentions.shared.masks import causal_mask
from cab.patterns import Pattern
from cab.registries import ATTENTIONS

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 16 << 10
"""Of a picture"""
ROUNDING = 1e-9
"""In a difference of outputs over the step between their values"""
ENTRIES = {
    entry.info.id: entry
    for entry in ATTENTIONS.entries().values()
    if entry.target.startswith("attentions.")
}


@pytest.fixture(scope="module")
def docs():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        names = ("attention_maps", "attention_pictures", "attention_sources", "build_attentions")
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_card_has_a_panel_for_each_pattern_and_no_causal_one_looks_ahead(docs, name):
    cls = ATTENTIONS.load(ENTRIES[name])
    maps = [docs["attention_maps"].attention_map(cls, p) for p in Pattern if p in cls.info.patterns]
    for one in maps:
        assert torch.isfinite(one.values).all()
        if one.pattern is Pattern.CAUSAL_SELF:
            ahead = one.values[~causal_mask(*one.values.shape)]
            assert ahead.abs().max() <= ROUNDING
    drawn = docs["attention_pictures"].picture(name, maps)
    panels = re.findall(r'font-weight="600">(.*?)</text>', drawn)
    assert panels == [p.value for p in Pattern if p in cls.info.patterns]
    assert len(drawn.encode()) <= MOST_BYTES
    card = docs["build_attentions"].card(cls, maps, list(ENTRIES))
    assert cls.info.formula in card
    for option in cls.info.options:
        assert f"| `{option.name}` | `{option.default}` |" in card
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", card)
    assert all((ROOT / "docs" / "attentions" / link).exists() for link in links)
    assert "not said" not in card, "every pattern that is absent has its reason in the record"


def test_softmax_is_drawn_with_its_weights(docs):
    maps = docs["attention_maps"]
    cls = ATTENTIONS.load(ENTRIES["softmax"])
    q, k, _, _ = maps.example(cls.info, Pattern.CAUSAL_SELF)
    scores = (q @ k.mT)[0, 0] * q.shape[-1] ** -0.5
    hidden = ~causal_mask(*scores.shape)
    want = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    found = maps.attention_map(cls, Pattern.CAUSAL_SELF)
    assert found.weights
    assert torch.allclose(found.values, want, atol=1e-9)


def test_what_is_not_a_weighted_sum_is_drawn_with_the_sizes_of_derivatives(docs):
    maps = docs["attention_maps"]
    cls = ATTENTIONS.load(ENTRIES["decon-mlp"])
    q, _, _, _ = maps.example(cls.info, Pattern.NONCAUSAL_SELF)
    gates = torch.nn.functional.silu(q[0, 0])
    found = maps.attention_map(cls, Pattern.NONCAUSAL_SELF)
    assert not found.weights
    assert torch.allclose(found.values, torch.diag(gates.square().mean(-1).sqrt()), atol=1e-9)


def test_pictures_are_set_by_options_that_exist(docs):
    for name, settings in docs["attention_maps"].SETTINGS.items():
        if name in ENTRIES:
            assert settings.keys() <= ENTRIES[name].info.defaults().keys(), name


def test_tests_are_found_by_module_and_by_name(docs):
    tests_of = docs["attention_sources"].tests_of
    names = list(ENTRIES)

    def found(name):
        return {h.path: h.tests for h in tests_of(name, ATTENTIONS.load(ENTRIES[name]), names)}

    own = found("rat")["tests/attentions/test_rat.py"]
    assert "chunks of one token without gates are softmax" in own
    local = found("local")["tests/attentions/test_oracles.py"]
    assert "local with a window over everything is softmax" in local
    assert "tests/attentions/test_modifiers.py" in found("softmax+modpai")
    assert "tests/attentions/test_rat.py" not in found("local")


def test_every_family_is_explained(docs):
    families = docs["build_attentions"]._families()
    assert set(families) == set(cab.Family)
    assert all(families.values())
