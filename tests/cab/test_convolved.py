"""Entries behind a short convolution: names, hashes, and what they compute."""

import pytest
import torch
from torch.nn import functional as F

import cab
from cab.cli.cite import cite_command
from cab.cli.show import show_command
from cab.code_hash import attention_hash
from cab.convolved.name import parse_name, parse_target
from cab.errors import UnknownEntryError, UsageError
from cab.registries import ATTENTIONS
from tests.attentions.cases import draw, error, qkv


def convolved(name, pattern, **options):
    module = cab.attention(name, pattern=pattern, heads=3, head_dim=5, **options)
    return module.double().eval()


def taps(module, x, before):
    """The convolution, token by token; ``before`` tokens are before the one itself."""
    padded = F.pad(x, (0, 0, before, module.width - 1 - before))
    shifted = [padded[:, :, s : s + x.shape[2]] for s in range(module.width)]
    return sum(weight * y for weight, y in zip(module.weight, shifted, strict=True))


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("pattern", ["NS", "CS", "NC", "CC"])
def test_queries_keys_and_values_pass_a_convolution(pattern, width):
    q, k, v = qkv(19 if pattern.endswith("S") else 11, 19)
    module = convolved(f"softmax@conv{width}", pattern)
    centred, behind = width // 2, width - 1
    of_queries = behind if pattern.startswith("C") else centred
    of_keys = behind if pattern == "CS" else centred
    want = cab.attention("softmax", pattern=pattern, heads=3, head_dim=5)(
        taps(module.q, q, of_queries), taps(module.k, k, of_keys), taps(module.v, v, of_keys)
    )
    assert error(module(q, k, v), want) <= 1e-12
    assert error(module.reference(q, k, v), want) <= 1e-12


def test_a_convolution_that_is_one_tap_changes_nothing():
    q, k, v = qkv()
    module = convolved("lla@conv4", "CS")
    for x in (module.q, module.k, module.v):
        x.weight.data.zero_()
        x.weight.data[-1] = 1.0
    assert error(module(q, k, v), convolved("lla", "CS")(q, k, v)) <= 1e-12


def test_no_token_sees_a_later_one():
    q, k, v = qkv()
    module = convolved("linear-elu@conv4", "CS")
    first = module(q, k, v)
    changed = [x.clone() for x in (q, k, v)]
    for x in changed:
        x[:, :, 9:] = draw((1,), seed=3)[0]
    assert torch.equal(module(*changed)[:, :, :9], first[:, :, :9])


def test_queries_of_the_last_tokens_alone_are_refused():
    q, k, v = qkv(3, 19)
    with pytest.raises(NotImplementedError, match="as many as keys"):
        convolved("softmax@conv4", "CS")(q, k, v)


def test_it_does_not_decode_and_says_what_it_costs():
    module = convolved("linear-elu@conv4", "CS")
    assert not type(module).decodes()
    shape = cab.AttentionShape(2, 3, 19, 19, 5, 5)
    assert module.flops(shape) == module.inner.flops(shape) + 2 * 4 * 2 * 3 * 19 * 15


def test_options_reach_the_entry():
    assert convolved("local@conv4", "CS", window=3).inner.window == 3


def test_the_record_is_the_entrys_own_under_its_name():
    entry, inner = (ATTENTIONS.resolve(name) for name in ("lla@conv4", "lla"))
    assert entry.id == "lla@conv4"
    assert entry.info.patterns == inner.info.patterns
    assert entry.info.options == inner.info.options
    assert ATTENTIONS.resolve(entry.target).info == entry.info
    assert ATTENTIONS.listed("lla@conv4") == entry
    assert ATTENTIONS.listed("unheard@conv4") is None
    assert "lla@conv4" not in ATTENTIONS.entries()


def test_a_part_of_a_hybrid_may_have_one():
    entry = ATTENTIONS.resolve("lla@conv4:1,linear-elu:1")
    cls = ATTENTIONS.load(entry)
    specs = [cab.AttentionSpec(cab.Pattern.CAUSAL_SELF, 2, 8, layer_index=i) for i in range(2)]
    names = [type(cls(spec)).info.id for spec in specs]
    assert names == ["lla@conv4", "linear-elu"]


@pytest.mark.parametrize("name", ["lla@conv1", "lla@conv65", "lla@conv999999999"])
def test_a_width_that_is_none(name):
    with pytest.raises(UsageError, match="2 to 64"):
        ATTENTIONS.resolve(name)


def test_it_is_shown_and_cited_as_its_entry(tmp_path, capsys):
    show_command("gla@conv4", tmp_path, reference=False)
    assert "behind a convolution of width 4" in capsys.readouterr().out
    cite_command(["gla@conv4"], used=False, out=tmp_path)
    assert "Gated Linear Attention Transformers" in capsys.readouterr().out


def test_parts_of_results_with_a_convolution():
    assert [entry.id for entry in ATTENTIONS.parts_of("gla@conv4")] == ["gla"]
    hybrid = ATTENTIONS.parts_of("gla@conv4:1,softmax:1")
    assert [entry.id for entry in hybrid] == ["gla@conv4", "softmax"]
    assert ATTENTIONS.parts_of("unheard@conv4") == []


def test_what_has_none():
    with pytest.raises(UnknownEntryError):
        ATTENTIONS.resolve("unheard@conv4")
    with pytest.raises(UsageError, match="after training"):
        ATTENTIONS.resolve("softmax+act-calib@conv4")


def test_names_that_are_none():
    for word in ("lla", "lla@conv", "conv4", "@conv4", "lla@4"):
        assert parse_name(word) is None
    assert parse_target("attentions.lla:LocalLinearAttention") is None


@pytest.mark.parametrize("kind", ["quality", "efficiency"])
def test_the_hash_is_of_entry_and_width(kind):
    names = ["lla", "lla@conv4", "lla@conv3", "linear-elu@conv4"]
    hashes = [attention_hash(ATTENTIONS.resolve(name).target, kind) for name in names]
    assert len(set(hashes)) == 4
