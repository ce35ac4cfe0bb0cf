"""Hybrids: formulas, the entries that they make, and the modules that stand in the layers."""

import pytest
import torch

import cab
from cab import Grade, Pattern, Slots
from cab.candidate import choose_candidate, choose_candidates
from cab.code_hash import attention_hash
from cab.errors import CabError, OptionError, UnsupportedPatternError, UsageError
from cab.hybrids.formula import cycle_of, is_formula, parse
from cab.hybrids.placement import slots_of_parts
from cab.info import Family
from cab.registries import ATTENTIONS

SOURCE = """
from cab import Attention, AttentionInfo, Grade, Option, Pattern, register_attention


@register_attention(
    AttentionInfo(
        id="mine",
        title="Mine",
        formula="o = v",
        patterns={Pattern.CAUSAL_SELF: Grade.ADAPTED},
        time="L D",
        memory="1",
        options=(Option("width", 4, "of it"),),
    )
)
class Mine(Attention):
    def __init__(self, spec, width=4):
        if width % 2:
            raise ValueError("width must be even")
        super().__init__(spec)

    def forward(self, q, k, v, context=None):
        return v * 1.0
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def layers(formula, count, pattern="causal-self"):
    """What stands in the first layers, by id."""
    place = {"pattern": pattern, "heads": 2, "head_dim": 8, "layers": count}
    return [cab.attention(formula, layer_index=i, **place) for i in range(count)]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("lla:1,linear-elu:3", "lla:1,linear-elu:3"),
        (" lla:1 , linear-elu:3 ", "lla:1,linear-elu:3"),
        ("linear-elu:3,lla:1", "linear-elu:3,lla:1"),
        ("lla:1,linear-elu:1,linear-elu:2", "lla:1,linear-elu:3"),
        ("lla:1,softmax:1,lla:1,softmax:1", "lla:1,softmax:1"),
        ("lla:1,softmax:2,lla:1,softmax:1", "lla:1,softmax:2,lla:1,softmax:1"),
        ("lla(ridge=1.0):1,softmax:01", "lla:1,softmax:1"),
        ("lla( ridge = .5, solver=cg ):1,softmax:1", "lla(ridge=0.5,solver=cg):1,softmax:1"),
        ("lla(solver=cg,ridge=0.5):1,softmax:1", "lla(ridge=0.5,solver=cg):1,softmax:1"),
        ("decon-mlp(hybrid=yes):1,lla:1", "decon-mlp(hybrid=True):1,lla:1"),
        ("lla:1,lla(solver=cg):1", "lla:1,lla(solver=cg):1"),
    ],
)
def test_one_sequence_of_layers_has_one_name(written, name):
    entry = ATTENTIONS.resolve(written)
    assert entry.id == entry.info.id == name
    assert ATTENTIONS.resolve(entry.id) == entry
    assert ATTENTIONS.resolve(entry.target) == entry
    assert ATTENTIONS.listed(name) == entry


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("lla:0,softmax:1", "lla:0 has no layer"),
        ("lla:-1,softmax:1", "is name:layers"),
        ("lla:1.5,softmax:1", "is name:layers"),
        ("lla,softmax:1", "is name:layers"),
        ("lla:1,,softmax:1", "is name:layers, .* not ''"),
        ("lla:1(solver=cg),softmax:1", r"as in lla\(solver=cg\):1"),
        ("lla(solver):1,softmax:1", "name=value, not 'solver'"),
        ("lla():1,softmax:1", "name=value, not ''"),
        ("lal:1,softmax:1", "unknown attention 'lal'; did you mean"),
        ("lla:1", "two different parts, .* --attn lla"),
        ("lla:1,lla(ridge=1.0):2", "two different parts"),
        ("lla(rigde=1):1,softmax:1", "no option 'rigde'"),
        ("lla(solver=no):1,softmax:1", "is one of auto"),
        ("performer(features=9999999999):1,softmax:1", "at most"),
        ("softmax+modpai:1,softmax:1", "no part of a hybrid"),
        ("ep:1,decon-nonapprox:1", "no pattern in common"),
        ("lla:600,softmax:600", "1024 layers at most"),
        ("absent.py:Mine:1,softmax:1", "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(written, says):
    with pytest.raises(CabError, match=says):
        ATTENTIONS.resolve(written)
    assert ATTENTIONS.listed(written) is None
    assert ATTENTIONS.parts_of(written) == []


@pytest.mark.parametrize(
    "name", ["lla", "mine.py:Mine", "cab.x:Y2", "/a,b/c.py:D", "softmax+modpai"]
)
def test_names_of_single_entries_are_no_formulas(name):
    assert not is_formula(name)


def test_the_record_is_what_all_parts_have_in_common():
    info = ATTENTIONS.resolve("local:1,linear-elu:3").info
    local, linear = (ATTENTIONS.resolve(name).info for name in ("local", "linear-elu"))
    assert set(info.patterns) == set(local.patterns) & set(linear.patterns)
    order = list(Grade)
    for pattern, grade in info.patterns.items():
        grades = (local.patterns[pattern], linear.patterns[pattern])
        assert grade == max(grades, key=order.index)
    assert info.family is Family.HYBRID
    assert not info.options
    assert local.paper in info.paper
    assert linear.paper in info.paper
    with pytest.raises(UnsupportedPatternError, match="local does not: queries and keys"):
        choose_candidate("local:1,linear-elu:3").require(Pattern.CAUSAL_CROSS)


def test_layers_take_the_parts_in_turn():
    found = [type(module).info.id for module in layers("lla:1,linear-elu:3", 9)]
    assert found == (["lla"] + ["linear-elu"] * 3) * 2 + ["lla"]
    assert [m.solver for m in layers("lla(solver=cg):1,lla:1", 2)] == ["cg", "auto"]


def test_a_slot_holds_the_module_that_the_part_alone_would_have():
    """Its weights too: draws of a slot depend on the seed and its place alone."""

    def weights(name, options=None):
        candidate = choose_candidate(name)
        softmax = ATTENTIONS.load(ATTENTIONS.resolve("softmax"))
        slots = Slots(Pattern.CAUSAL_SELF, candidate.load(), softmax, candidate.options, seed=3)
        for index in range(4):
            slots.layer(index, of=4, max_length=16)(Pattern.CAUSAL_SELF, heads=2, head_dim=8)
        return slots.candidates

    one, other, both = weights("s4d"), weights("s6-mix"), weights("s4d:1,s6-mix:2")
    alone = [one[0], other[1], other[2], one[3]]
    assert list(map(type, both)) == list(map(type, alone))
    for module, expected in zip(both, alone, strict=True):
        state, wanted = module.state_dict(), expected.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)


def test_hashes_cover_every_part_with_its_options_layers_and_place():
    def of(formula, kind="quality"):
        return attention_hash(ATTENTIONS.resolve(formula).target, kind)

    names = [
        "lla:1,linear-elu:3", "lla:1,linear-elu:2", "linear-elu:3,lla:1", "lla:1,performer:3",
        "lla(ridge=0.5):1,linear-elu:3", "lla(solver=cg):1,linear-elu:3",
    ]  # fmt: skip
    assert len({of(name) for name in names}) == len(names)
    assert of(names[0]) == of("lla(ridge=1.0):1,linear-elu:3")
    assert of(names[0]) != of(names[0], "efficiency")


def test_an_edited_part_is_another_hybrid_to_the_store(mine):
    def now():
        return choose_candidate(f"{mine}:Mine:1,softmax:1").hash("quality")

    before = now()
    mine.write_text(SOURCE + "\n# a remark\n")
    assert now() == before
    mine.write_text(SOURCE.replace("v * 1.0", "v * 2.0"))
    assert now() != before


def test_parts_may_lie_in_files(mine):
    entry = ATTENTIONS.resolve(f"softmax:1,{mine}:Mine(width=8):2")
    assert entry.id == "softmax:1,mine(width=8):2"
    assert entry.info.patterns == {Pattern.CAUSAL_SELF: Grade.ADAPTED}
    assert ATTENTIONS.resolve(entry.target) == entry
    ids = [type(module).info.id for module in layers(entry.target, 3)]
    assert ids == ["softmax", "mine", "mine"]
    # Who only shows results imports nothing that they name.
    assert ATTENTIONS.listed(entry.id) is None
    assert ATTENTIONS.listed(entry.target) is None


def test_places_that_a_formula_cannot_hold_are_refused(tmp_path, mine, monkeypatch):
    folder = tmp_path / "a,b"
    folder.mkdir()
    (folder / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    with pytest.raises(CabError, match="has a comma"):
        ATTENTIONS.resolve("mine.py:Mine:1,softmax:1")


def test_two_classes_of_one_id_are_no_hybrid(tmp_path, mine):
    other = tmp_path / "other.py"
    other.write_text(SOURCE)
    with pytest.raises(UsageError, match="both call themselves 'mine'"):
        ATTENTIONS.resolve(f"{mine}:Mine:1,softmax:1,{other}:Mine:1")


def test_options_and_presets_go_to_the_others(mine):
    chosen, _ = choose_candidates(["lla", "lla:1,softmax:1"], {"ridge": "0.5"})
    assert [c.options.get("ridge") for c in chosen] == [0.5, None]
    with pytest.raises(OptionError, match="stand in its name"):
        choose_candidates(["lla:1,softmax:1"], {"ridge": "0.5"})
    with pytest.raises(OptionError, match="has no preset 'cab'"):
        choose_candidates(["lla:1,softmax:1"], preset="cab")
    with pytest.raises(OptionError, match="width must be even"):
        choose_candidates([f"softmax:2,{mine}:Mine(width=3):1"])


def test_all_goes_with_hybrids():
    chosen, _ = choose_candidates(["all", "lla:1,softmax:1"])
    assert {c.id for c in chosen} == {*ATTENTIONS.entries(), "lla:1,softmax:1"}


def test_slots_are_counted_by_part():
    parts = parse("lla:1,linear-elu:3")
    assert len(cycle_of(parts)) == 4
    assert slots_of_parts(parts, [0, 1, 0, 1, 2]) == {"lla": 2, "linear-elu": 3}
    assert slots_of_parts(parts, [0, 4, 8]) == {"lla": 3, "linear-elu": 0}


def test_the_published_mixtures_of_two_are_hybrids_too():
    """`decon-mlp` has an option for softmax attention in even layers."""
    own, made = layers("decon-mlp(hybrid=true):1,lla:1", 1), layers("softmax:1,decon-mlp:1", 2)
    shape = (2, 2, 5, 8)
    q, k, v = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    assert torch.equal(own[0](q, k, v), made[0](q, k, v))
