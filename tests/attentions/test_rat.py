"""RAT: softmax and a gated mean at its two ends, states under a mask between them, decoding."""

import copy

import pytest
import torch

import attentions.rat as rat
import cab
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv


def opened(attention, gate=None):
    """The module with z = 1, and with gates of one value."""
    with torch.no_grad():
        # q·W_z = 1e3 everywhere, for queries with a first dimension of 1.
        attention.output_gate.zero_()
        attention.output_gate[:, 0] = 1e3
        if gate is not None:
            attention.gate.zero_()
            attention.gate_bias.fill_(gate)
    return attention


def with_ones(q):
    q = q.clone()
    q[..., 0] = 1.0
    return q


def test_chunks_of_one_token_without_gates_are_softmax():
    q, k, v = qkv()
    attention = opened(module("rat", "CS", chunk=1, rope=False), gate=-1e3)
    want = module("softmax", "CS")(with_ones(q), k, v)
    assert error(attention(with_ones(q), k, v), want) <= 1e-13


def test_a_chunk_as_long_as_the_sequence_is_a_gated_mean():
    q, k, v = qkv(40, 40)
    attention = opened(module("rat", "CS", chunk=64))
    gate = (k @ attention.gate + attention.gate_bias[:, None]).sigmoid()
    state, want = torch.zeros_like(v[:, :, 0]), []
    for t in range(40):
        state = gate[:, :, t] * state + (1 - gate[:, :, t]) * v[:, :, t]
        want.append(state)
    assert error(attention(with_ones(q), k, v), torch.stack(want, dim=2)) <= 1e-13


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 7])
@pytest.mark.parametrize("length", [1, 7, 29])
def test_equals_softmax_over_states_under_a_mask(chunk, length, rope, monkeypatch):
    monkeypatch.setattr(rat, "_BLOCK", 8)
    q, k, v = qkv(length, length)
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    attention = module("rat", "CS", chunk=chunk, rope=rope)
    (grad,) = draw(q.shape, seed=1)
    for context in (None, AttentionContext(key_mask=mask, query_mask=mask)):
        got, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), grad)
        want, wanted = gradients(lambda *x, c=context: attention.reference(*x, c), (q, k, v), grad)
        assert error(got, want) <= 1e-12
        for x, y in zip(found, wanted, strict=True):
            assert error(x, y) <= 1e-12


def test_rotary_codes_turn_by_the_distance_of_chunks():
    q, k, v = qkv(24, 24)
    plain, turned = (module("rat", "CS", chunk=4, rope=r) for r in (False, True))
    turned.load_state_dict(plain.state_dict())
    ours, theirs = turned(q, k, v), plain(q, k, v)
    # In the first chunk a query sees its own state alone, and its code cancels.
    assert error(ours[:, :, :4], theirs[:, :, :4]) <= 1e-13
    assert error(ours, theirs) > 1e-2


def test_the_gates_start_as_means_over_up_to_a_chunk():
    attention = module("rat", "CS", chunk=16)
    assert attention.gate_bias.min() >= 0.0
    assert attention.gate_bias.max() <= torch.tensor(15.0).log()
    assert module("rat", "CS", chunk=1).gate_bias.abs().max() == 0


def test_values_of_another_width_have_gates_of_their_own():
    q, k, v = qkv(20, 20)
    v = v[..., :3]
    spec = cab.AttentionSpec(cab.Pattern.CAUSAL_SELF, 3, 5, value_dim=3)
    attention = rat.Rat(spec, chunk=6).double()
    assert attention.value_gate.shape == (3, 3, 3)
    assert error(attention(q, k, v), attention.reference(q, k, v)) <= 1e-12


@pytest.mark.parametrize("prompt", [0, 3, 8, 20])
def test_decoding_across_chunks(prompt):
    q, k, v = qkv(30, 30)
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[0, :prompt] = False  # whole chunks without a token
    attention = module("rat", "CS", chunk=4)
    want = attention(q, k, v, AttentionContext(key_mask=mask, query_mask=mask))
    given = AttentionContext(key_mask=mask[:, :prompt])
    state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt], given)
    for t in range(prompt, 30):
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-12
    kept = sum(state.tensors[n].numel() for n in ("ends_k", "ends_v", "k", "v")) // 2
    assert kept == attention.state_size(29)


def test_every_second_layer_may_be_a_window():
    q, k, v = qkv()
    layers = [
        cab.attention("rat", pattern="CS", heads=3, head_dim=5, layer_index=i, layers=2, window=4)
        for i in (0, 1)
    ]
    window = module("local", "CS", window=4)
    assert error(layers[1].double()(q, k, v), window(q, k, v)) <= 1e-14
    assert error(layers[0].double()(q, k, v), window(q, k, v)) > 1e-2
    assert not list(layers[1].parameters())
    state = layers[1].prefill(k[:, :, :9], v[:, :, :9])
    row, _ = layers[1].step(*(x[:, :, 9:10] for x in (q, k, v)), state)
    assert error(row, window(q, k, v)[:, :, 9:10]) <= 1e-13


def test_copies_and_maps_over_a_dimension():
    q, k, v = qkv(20, 20)
    attention = module("rat", "CS", chunk=6)
    want = attention(q, k, v)
    assert torch.equal(copy.deepcopy(attention)(q, k, v), want)
    other = module("rat", "CS", chunk=6)
    other.load_state_dict(attention.state_dict())
    assert torch.equal(other(q, k, v), want)
    with torch.no_grad():
        mapped = torch.func.vmap(attention)(*(torch.stack([x, x]) for x in (q, k, v)))
    assert error(mapped[1], want) <= 1e-13


@pytest.mark.parametrize("options", [{"chunk": 0}, {"window": -1}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(OptionError):
        module("rat", "CS", **options)
