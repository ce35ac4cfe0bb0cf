"""Entries with one state: what they equal in special cases, and the plain references of others."""

import pytest
import torch
from torch.nn import functional as F

import cab
from attentions.shared import ridge_states
from attentions.shared.delta_rule import unit
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.upstream import NEAR, flash_linear_attention, tokens_first

LONG = 70
PATTERNS = ["NS", "CS", "NC", "CC"]
GATED = [
    "comba", "deltanet", "gated-deltanet", "gated-deltaproduct", "gdn2", "gla", "kda", "longhorn",
    "mamba2-ssd", "mesanet", "mlstm", "precond-gdn", "rwkv7",
]  # fmt: skip
SCALE = 5**-0.5


def tokens(seed=5, length=LONG):
    """q, k, v and a context with the layer's inputs."""
    x = draw((2, length, 15), seed=seed)[0]
    return *qkv(length, length, seed=seed), AttentionContext(query_input=x, key_input=x)


def agrees(found, want):
    """With what was computed in float32 and tokens first."""
    assert error(tokens_first(want)[0], found) <= NEAR


def given(attention, k, v, context):
    """Keys, values with beta, decays and beta as others take them: tokens first."""
    writes = attention.writers[0](k, v, context)
    beta = attention.writers[0].beta(context.key_input)
    decay = writes.decay
    if decay is not None and decay.shape[-1] == 1:
        decay = decay[..., 0]
    keys, values = writes.keys, F.silu(v)
    return writes, [None if x is None else x.transpose(1, 2) for x in (keys, values, decay, beta)]


def test_gated_deltanet_is_the_gated_delta_rule_of_fla():
    naive = flash_linear_attention("ops/gated_delta_rule/naive.py")
    attention, (q, k, v, c) = module("gated-deltanet", "CS", norm=False), tokens()
    _, (keys, values, decay, beta) = given(attention, k, v, c)
    rows = tokens_first(unit(F.silu(q)))[0]
    want, _ = naive.naive_recurrent_gated_delta_rule(rows, keys, values, beta[..., 0], decay)
    agrees(attention(q, k, v, c), want)


def test_gated_deltanet_is_that_of_qwen3_next_in_transformers():
    from transformers.models.qwen3_next import modeling_qwen3_next as theirs

    attention, (q, k, v, c) = module("gated-deltanet", "CS", norm=False), tokens()
    _, (keys, values, decay, beta) = given(attention, k, v, c)
    rows = tokens_first(unit(F.silu(q)))[0]
    inputs = (rows, keys, values, decay, beta[..., 0])
    for rule in (theirs.torch_recurrent_gated_delta_rule, theirs.torch_chunk_gated_delta_rule):
        agrees(attention(q, k, v, c), rule(*inputs)[0])


def test_kda_is_that_of_fla():
    naive = flash_linear_attention("ops/kda/naive.py")
    attention, (q, k, v, c) = module("kda", "CS", norm=False), tokens()
    _, (keys, values, decay, beta) = given(attention, k, v, c)
    rows = tokens_first(unit(F.silu(q)))[0]
    # It gives float32 only where all are.
    inputs = (x.float() for x in (rows, keys, values, decay, beta[..., 0]))
    agrees(attention(q, k, v, c), naive.naive_recurrent_kda(*inputs)[0])


def test_deltanet_is_the_delta_rule_of_fla():
    naive = flash_linear_attention("ops/delta_rule/naive.py")
    attention, (q, k, v, c) = module("deltanet", "CS", norm=False), tokens()
    _, (keys, values, _, beta) = given(attention, k, v, c)
    inputs = (x.transpose(1, 2).float() for x in (keys, values, beta))
    want, _ = naive.delta_rule_recurrence(unit(F.silu(q)).float(), *inputs)
    assert error(want, attention(q, k, v, c)) <= NEAR


def test_comba_is_that_of_fla():
    naive = flash_linear_attention("ops/comba/naive.py")
    attention, (q, k, v, c) = module("comba", "CS", norm=False), tokens()
    writes, (keys, values, decay, beta) = given(attention, k, v, c)
    rows, p = tokens_first(
        attention.reading(q, k) / SCALE, attention.writers[0].share(k.dtype) * writes.keys
    )
    want, _ = naive.naive_recurrent_comba(rows, keys, values, p, beta[..., 0], decay)
    agrees(attention(q, k, v, c), want)


def test_gdn2_is_that_of_fla():
    naive = flash_linear_attention("ops/gdn2/naive.py")
    attention, (q, k, v, c) = module("gdn2", "CS", norm=False), tokens()
    _, (keys, values, decay, beta) = given(attention, k, v, c)
    write = attention.writers[0].write(c.key_input).transpose(1, 2)
    rows = tokens_first(unit(F.silu(q)))[0]
    want, _ = naive.naive_recurrent_gdn2(rows, keys, values, decay, beta, write)
    agrees(attention(q, k, v, c), want)


def test_gla_is_that_of_fla():
    naive = flash_linear_attention("ops/gla/naive.py")
    attention, (q, k, v, c) = module("gla", "CS", norm=False), tokens()
    decay = attention.writers[0](k, v, c).decay
    want, _ = naive.naive_recurrent_gla(*tokens_first(q, k, v, decay))
    agrees(attention(q, k, v, c), want)


def test_mamba2_is_gated_linear_attention_with_one_decay_and_its_own_value():
    naive = flash_linear_attention("ops/simple_gla/naive.py")
    attention, (q, k, v, c) = module("mamba2-ssd", "CS", norm=False), tokens()
    writes = attention.writers[0](k, v, c)
    inputs = tokens_first(F.silu(q), writes.keys, writes.values, writes.decay[..., 0])
    want, _ = naive.naive_recurrent_simple_gla(*inputs, scale=1.0)
    attention.skip.data.mul_(0.3)
    agrees(attention(q, k, v, c) - 0.3 * F.silu(v), want)


def test_rwkv7_is_the_recurrence_of_fla_with_its_bonus():
    naive = flash_linear_attention("ops/generalized_delta_rule/dplr/naive.py")
    attention, (q, k, v, c) = module("rwkv7", "CS", norm=False), tokens()
    writer = attention.writers[0]
    removed, rate = unit(k * writer.removal), writer._gate(writer.rate, c.key_input)
    added = writer.added(k, c.key_input)
    decay = writer(k, v, c).decay[..., 1::2, :]
    inputs = (q / SCALE, added, v, -removed, rate * removed, decay)
    want, _ = naive.dplr_recurrence(*(x.float() for x in inputs))
    bonus = (q * attention.bonus * added).sum(-1, True) * v
    assert error(want, attention(q, k, v, c) - bonus) <= NEAR


def test_retention_is_that_of_fla():
    naive = flash_linear_attention("ops/retention/naive.py")
    attention, (q, k, v, _) = module("retnet", "CS", norm=False, rotary=False), tokens()
    assert error(naive.naive_retention(q, k, v), attention(q, k, v)) <= NEAR


def test_turned_queries_and_keys_know_the_difference_of_their_places_only():
    q, k, v, _ = tokens()
    attention = module("retnet", "CS", norm=False)
    first = attention(q[:, :, 20:], k[:, :, 20:], v[:, :, 20:])
    mask = (torch.arange(LONG) >= 20).expand(2, -1)
    moved = attention(q, k, v, AttentionContext(key_mask=mask, query_mask=mask))
    assert error(moved[:, :, 20:], first) <= 1e-12
    assert error(first, module("retnet", "CS", norm=False, rotary=False)(q, k, v)[:, :, 20:]) > 0.1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_state_that_does_not_fade_is_that_of_deltanet(pattern):
    q, k, v, c = tokens()
    gated, plain = module("gated-deltanet", pattern), module("deltanet", pattern)
    for ours, theirs in zip(gated.writers, plain.writers, strict=True):
        ours.decay.log_rate.data.fill_(-100.0)
        theirs.beta.load_state_dict(ours.beta.state_dict())
    assert error(gated(q, k, v, c), plain(q, k, v, c)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_channels_that_fade_alike_are_a_gated_deltanet(pattern):
    q, k, v, c = tokens()
    channels, heads = module("kda", pattern), module("gated-deltanet", pattern)
    for ours, theirs in zip(channels.writers, heads.writers, strict=True):
        theirs.beta.load_state_dict(ours.beta.state_dict())
        ours.decay.log_rate.data.copy_(theirs.decay.log_rate)
        ours.decay.step_bias.data.copy_(theirs.decay.step_bias.repeat_interleave(5))
        for layer in (*ours.decay.project, theirs.decay.project):
            layer.weight.data.zero_()
    assert error(channels(q, k, v, c), heads(q, k, v, c)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gates_of_channels_that_are_one_number_are_kda(pattern):
    q, k, v, c = tokens()
    ours, theirs = module("gdn2", pattern), module("kda", pattern)
    for a, b in zip(ours.writers, theirs.writers, strict=True):
        a.decay.load_state_dict(b.decay.state_dict())
        for gate in (a.beta.project[-1], a.write.project[-1], b.beta.project):
            gate.weight.data.zero_()
    assert error(ours(q, k, v, c), theirs(q, k, v, c)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_delta_step_is_a_gated_deltanet_with_negative_eigenvalues(pattern):
    q, k, v, c = tokens()
    ours = module("gated-deltaproduct", pattern, steps=1)
    theirs = module("gated-deltanet", pattern, negative=True)
    for a, b in zip(ours.writers, theirs.writers, strict=True):
        a.decay.load_state_dict(b.decay.state_dict())
        a.beta.load_state_dict(b.beta.state_dict())
    assert error(ours(q, k, v, c), theirs(q, k, v, c)) <= 1e-12


def test_comba_without_feedback_is_a_gated_deltanet():
    q, k, v, c = tokens()
    ours, theirs = module("comba", "CS"), module("gated-deltanet", "CS")
    ours.feedback.data.zero_()
    ours.writers[0].shorter.data.fill_(100.0)
    ours.writers[0].load_state_dict(theirs.writers[0].state_dict(), strict=False)
    assert error(ours(q, k, v, c), theirs(q, k, v, c)) <= 1e-12


def test_a_delta_rule_over_keys_at_right_angles_is_linear_attention():
    q, _, v, c = tokens(length=5)
    attention = module("deltanet", "CS", norm=False)
    attention.writers[0].beta.project.weight.data.zero_()
    attention.writers[0].beta.most = 2.0
    # SiLU is bent, so that keys are what SiLU makes the axes of.
    axes = 50.0 * torch.eye(5, dtype=torch.float64).expand(2, 3, -1, -1)
    scores = (unit(F.silu(q)) * SCALE) @ unit(F.silu(axes)).mT
    assert error(attention(q, axes, v, c), scores.tril() @ F.silu(v)) <= 1e-6


def test_two_steps_turn_a_state():
    """Two reflections are a rotation: what one step with real eigenvalues cannot be."""
    attention = module("gated-deltaproduct", "CS", dim=2)
    writer = attention.writers[0]
    for gate in (writer.beta.project, writer.decay.project):
        gate.weight.data.zero_()
    writer.decay.log_rate.data.fill_(-100.0)
    writer.beta.most = 4.0
    x = torch.zeros(1, 1, 6, dtype=torch.float64)
    k = torch.tensor([[40.0, 0.0]], dtype=torch.float64).expand(1, 3, 1, 2)
    angle = torch.tensor(0.4, dtype=torch.float64)
    turn = torch.stack([angle.cos(), angle.sin()])
    writer.more_keys.data[0] = torch.stack([turn, turn])
    writes = writer(k, torch.zeros_like(k), AttentionContext(key_input=x))
    state = torch.eye(2, dtype=torch.float64)
    for t in range(2):
        state = state - writes.keys[0, 0, t, :, None] * (writes.erase[0, 0, t] @ state)
    assert error(state @ state.mT, torch.eye(2, dtype=torch.float64)) <= 1e-6
    assert state.det() > 0.999
    assert abs(state[0, 0] - (2 * angle).cos()) <= 1e-6


@pytest.mark.parametrize("name", [*GATED, "retnet", "lightning"])
def test_a_token_counts_once_from_both_sides(name):
    """Of one token alone, what noncausal self attention gives is what causal does."""
    q, k, v, c = tokens(length=1)
    both, one = module(name, "NS"), module(name, "CS")
    one.load_state_dict(both.state_dict(), strict=False)
    assert error(both(q, k, v, c), one(q, k, v, c)) <= 1e-12


@pytest.mark.parametrize("name", ["retnet", "lightning"])
def test_padding_behind_a_source_is_no_time_that_passes(name):
    q, k, v, _ = tokens()
    attention = module(name, "NC", norm=False)
    padded = [F.pad(x, (0, 0, 0, 30), value=7.0) for x in (k, v)]
    mask = (torch.arange(LONG + 30) < LONG).expand(2, -1)
    got = attention(q, *padded, AttentionContext(key_mask=mask))
    assert error(got, attention(q, k, v)) <= 1e-12


@pytest.mark.parametrize("name", GATED)
def test_without_layer_inputs_it_says_what_to_give(name):
    with pytest.raises(ValueError, match="AttentionContext"):
        module(name, "CS")(*qkv())


def test_later_layers_of_lightning_forget_more_slowly():
    rates = [module("lightning", "CS").writers[0].rate]
    assert (rates[0] < 0).all()
    spec = {"pattern": "CS", "heads": 3, "head_dim": 5, "layers": 4}
    later = cab.attention("lightning", layer_index=3, **spec).writers[0].rate
    assert (later.abs() < 1e-4 * rates[0].abs()).all()


def test_precond_gdn_is_that_of_fla():
    naive = flash_linear_attention("ops/precond_gated_delta_rule/naive.py")
    attention, (q, k, v, c) = module("precond-gdn", "CS", norm=False), tokens()
    writer = attention.writers[0]
    _, (_, values, decay, beta) = given(attention, k, v, c)
    of_use = [gate(c.key_input)[..., 0] for gate in (writer.use_decay, writer.use_beta)]
    g_use, beta_use = tokens_first(*of_use)
    want = naive.naive_recurrent_precond_gated_delta_rule(
        *tokens_first(F.silu(q), F.silu(k)), values, g_use, decay, beta_use, beta[..., 0], x=1.5,
    )  # fmt: skip
    agrees(attention(q, k, v, c), want[0])


def test_a_preconditioner_of_one_is_a_gated_deltanet():
    q, k, v, c = tokens()
    ours, theirs = module("precond-gdn", "NS"), module("gated-deltanet", "NS")
    for a, b in zip(ours.writers, theirs.writers, strict=True):
        a.load_state_dict(b.state_dict(), strict=False)
        # Nothing is in use, and that is where the centre lies.
        a.use_beta.most = 0.0
        a.centre.data.fill_(torch.tensor(1e-6, dtype=torch.float64).log())
    assert error(ours(q, k, v, c), theirs(q, k, v, c)) <= 1e-12


def test_longhorn_solves_its_regression():
    _, k, v, c = tokens(length=1)
    attention = module("longhorn", "CS", norm=False)
    k, v = 3 * k, 5 * v
    d = attention.writers[0].beta(c.key_input)
    state = attention.prefill(k, v, c).tensors["state"]
    # The gradient of |S|^2 + d |v - S^T k|^2 is zero there.
    k, v = F.silu(k), F.silu(v)
    residual = v - k @ state
    assert error(state, d * (k.mT @ residual)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_mlstm_with_open_gates_is_normalised_linear_attention(pattern):
    q, k, v, c = tokens()
    attention = module("mlstm", pattern, norm=False)
    for gates in attention.gates:
        gates.project.weight.data.zero_()
        gates.project.bias.data[:3], gates.project.bias.data[3:] = 80.0, 1.5
    scores = (q @ k.mT) * SCALE * torch.tensor(1.5, dtype=torch.float64).exp()
    parts = {"NS": [scores.tril(), scores.triu(1)], "CS": [scores.tril()]}.get(pattern, [scores])
    want = sum(w @ v / w.sum(-1, keepdim=True).abs().clamp(min=1) for w in parts)
    assert error(attention(q, k, v, c), want) <= 1e-9


def test_input_gates_far_above_one_overflow_nothing():
    q, k, v, c = tokens()
    q, k = q.abs(), k.abs()  # a sum that cancels is ill-conditioned, with or without overflow
    attention = module("mlstm", "CS", norm=False).float()
    attention.gates[0].project.bias.data[3:] = 300.0
    found = attention(*(x.float() for x in (q, k, v)), c)
    assert found.isfinite().all()
    assert error(found, attention.double().reference(q, k, v, c)) <= 1e-5


def test_mesanet_is_that_of_fla():
    naive = flash_linear_attention("ops/mesa_net/naive.py")
    attention, (q, k, v, c) = module("mesanet", "CS", norm=False), tokens()
    decay, beta = attention.writers[0].project(c.key_input).split(3, dim=-1)
    rows, keys, values = tokens_first(unit(q), unit(k), v)
    gates = F.logsigmoid(decay), attention._ridge(q), beta.sigmoid()
    want, *_ = naive.naive_mesa_net_exact(rows, keys, values, *gates)
    agrees(attention(q, k, v, c), want)


@pytest.mark.parametrize("pattern", ["NS", "NC", "CC"])
def test_mesanet_without_gates_is_one_ridge_regression(pattern):
    q, k, v, c = tokens()
    attention = module("mesanet", pattern, norm=False)
    for writer in attention.writers:
        writer.project.weight.data.zero_()
        writer.project.bias.data.fill_(80.0)
    rows, keys = unit(q), unit(k)
    ridge = torch.diag_embed(attention._ridge(q))
    want = rows @ torch.linalg.solve(keys.mT @ keys + ridge, keys.mT @ v)
    assert error(attention(q, k, v, c), want) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_segments_of_mesanet_join_up(pattern, monkeypatch):
    q, k, v, c = tokens()
    attention = module("mesanet", pattern)
    gradient = draw(v.shape, seed=2)[0]
    want = gradients(lambda *x: attention(*x, c), [q, k, v], gradient)
    monkeypatch.setattr(ridge_states, "_NUMBERS", 6 * 25 * 16)
    got = gradients(lambda *x: attention(*x, c), [q, k, v], gradient)
    assert error(got[0], want[0]) <= 1e-12
    for found, wanted in zip(got[1], want[1], strict=True):
        assert error(found, wanted) <= 1e-12
