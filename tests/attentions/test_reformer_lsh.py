"""Reformer's attention: what rounds hold by hand, softmax where all hashes agree, and no choice
that hangs on later tokens.
"""

import pytest
import torch

import cab
from cab import AttentionContext, Pattern
from cab.density import ReadsShare
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS"]


def held(attention, k, valid):
    """{(i, j)} of one head, token by token: (L, D) keys and the rotations (r, D, b / 2)."""
    pairs = set()
    for turn in attention.rotations[0]:
        hashes = {}
        for n in range(len(k)):
            if valid[n]:
                turned = k[n] @ turn
                hashes[n] = int(torch.cat([turned, -turned]).argmax())
        order = sorted(hashes, key=lambda n: (hashes[n], n))
        for at, i in enumerate(order):
            if attention.causal:
                before = [n for n in order[:at] if hashes[n] == hashes[i]]
                found = before[-attention.chunk :]
            else:
                chunk = at // attention.chunk
                start = max(0, chunk - 1) * attention.chunk
                found = order[start : (chunk + 1) * attention.chunk]
            pairs |= {(i, j) for j in found if hashes[j] == hashes[i] and j != i}
    return pairs | {(n, n) for n in hashes if not any(i == n for i, _ in pairs)}


@pytest.mark.parametrize("holes", [[], [0, 1, 7, 20]])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_softmax_over_what_any_round_holds(pattern, holes):
    q, k, v = draw(*[(1, 1, 40, 5)] * 3)
    attention = cab.attention(
        "reformer-lsh", pattern=pattern, heads=1, head_dim=5, rounds=3, buckets=4, chunk=4
    )
    attention = attention.double().eval()
    valid = [n not in holes for n in range(40)]
    pairs = held(attention, k[0, 0], valid)
    sees = torch.zeros(40, 40, dtype=torch.bool)
    for i, j in pairs:
        sees[i, j] = True
    context = AttentionContext(key_mask=torch.tensor([valid]))
    unit = k / k.norm(dim=-1, keepdim=True)
    scores = (k @ unit.mT / 5**0.5).masked_fill(~sees, -torch.inf)
    rows = [n for n in range(40) if valid[n]]
    want = scores[0, 0, rows].softmax(-1) @ v[0, 0]
    assert error(attention(q, k, v, context)[0, 0, rows], want) <= 1e-6  # 1e-6 in the length
    read = attention.density(q, k, AttentionContext(context.key_mask, context.key_mask))
    count = len(rows)
    visible = count * (count + 1) / 2 if pattern == "CS" else count**2
    assert read.item() == pytest.approx(len(pairs) / visible)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100, 257])
def test_tiles_are_the_matrix(pattern, rounds, length):
    q, k, v = qkv(length, length)
    (grad,) = draw(v.shape, seed=3)
    attention = module("reformer-lsh", pattern, rounds=rounds, buckets=4)

    def alone(function):
        return lambda k, v: function(q, k, v)

    out, found = gradients(alone(attention), (k, v), grad)
    want_out, want = gradients(alone(attention.reference), (k, v), grad)
    assert error(out, want_out) <= 1e-12
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-11


def same_direction(pattern, length=24):
    """Keys of one direction, and so of one hash in every round; queries that say the opposite."""
    _, k, v = qkv(length, length)
    k = k[..., :1, :] * torch.linspace(1, 2, length, dtype=k.dtype)[:, None]
    return -k, k, v


@pytest.mark.parametrize("rounds", [1, 4])
def test_where_all_hashes_agree_it_is_softmax_over_all_others(rounds):
    q, k, v = same_direction("NS")
    attention = module("reformer-lsh", "NS", rounds=rounds, chunk=12)
    unit = k / k.norm(dim=-1, keepdim=True)
    scores = k @ unit.mT / 5**0.5
    scores = scores.masked_fill(torch.eye(24, dtype=torch.bool), -torch.inf)
    want = scores.softmax(-1) @ v
    late = slice(12, None)  # the second of two chunks reads both
    assert error(attention(q, k, v)[..., late, :], want[..., late, :]) <= 1e-6


def test_where_all_hashes_agree_the_last_ones_before_a_token_are_read():
    q, k, v = same_direction("CS")
    out = module("reformer-lsh", "CS", chunk=5)(q, k, v)
    unit = k / k.norm(dim=-1, keepdim=True)
    scores = k[..., 20:21, :] @ unit[..., 15:20, :].mT / 5**0.5
    assert error(out[..., 20:21, :], scores.softmax(-1) @ v[..., 15:20, :]) <= 1e-6
    assert error(out[..., 0, :], v[..., 0, :]) <= 1e-12  # nothing is before the first


def test_opposite_directions_do_not_meet():
    _, k, v = qkv(16, 16)
    sign = torch.tensor([1.0, -1.0]).repeat(8).double()[:, None]
    k = k[..., :1, :] * sign
    out = module("reformer-lsh", "NS", rounds=8)(k, k, v)
    assert error(out[..., 1, :], v[..., 3::2, :].mean(-2)) <= 1e-12


def test_the_choice_hangs_on_nothing_later():
    _, k, v = draw(*[(1, 2, 300, 8)] * 3)
    attention = cab.attention("reformer-lsh", pattern="CS", heads=2, head_dim=8).double().eval()
    whole = attention(k, k, v)
    for length in (1, 40, 41, 150, 299):
        part = attention(*(x[:, :, :length] for x in (k, k, v)))
        assert error(part, whole[:, :, :length]) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_queries_are_not_read_and_rotations_do_not_learn(pattern):
    q, k, v = qkv()
    attention = module("reformer-lsh", pattern)
    assert torch.equal(attention(q, k, v), attention(-2 * q, k, v))
    assert not list(attention.parameters())
    assert isinstance(attention, ReadsShare)


def test_more_rounds_find_more_of_the_neighbours():
    q, k, _ = draw((1, 4, 400, 16), (1, 4, 400, 16), (1, 4, 400, 16))
    shares = []
    for rounds in (1, 2, 8):
        attention = cab.attention("reformer-lsh", pattern="NS", heads=4, head_dim=16, rounds=rounds)
        shares.append(attention.double().density(q, k).mean().item())
    assert 0 < shares[0] < shares[1] < shares[2] < 1


def test_hashes_come_in_opposite_pairs():
    with pytest.raises(ValueError, match="even"):
        module("reformer-lsh", "NS", buckets=5)
    assert set(type(module("reformer-lsh", "NS")).info.absent) == {
        Pattern.NONCAUSAL_CROSS,
        Pattern.CAUSAL_CROSS,
    }
