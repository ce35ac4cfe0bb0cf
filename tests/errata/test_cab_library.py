"""The defects of CAB's library that ERRATA.md lists, shown on the library itself.

They run where a copy of it is at hand (its dependencies einops and opt_einsum installed)::

    git clone https://github.com/Shark-NLP/CAB
    CAB_LIBRARY=CAB/efficient-attention python -m pytest tests/errata
"""

import importlib
import importlib.util
import os
import sys
import types
import warnings

import pytest
import torch

LIBRARY = os.environ.get("CAB_LIBRARY", "")
pytestmark = [
    pytest.mark.skipif(not LIBRARY, reason="CAB_LIBRARY does not say where CAB's library is"),
    pytest.mark.filterwarnings("ignore"),
]
EMBED, HEADS, BATCH, LENGTH = 32, 2, 3, 40


@pytest.fixture(scope="module")
def library():
    sys.path.insert(0, os.path.abspath(LIBRARY))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield importlib.import_module("efficient_attention")
    sys.path.remove(os.path.abspath(LIBRARY))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(length=LENGTH):
    return torch.randn(BATCH, length, EMBED)


def run(attention, x, **masks):
    return attention(x, x, x, batch_first=True, **masks)[0]


def padding(valid):
    """True where padded, as the library has it."""
    return (torch.arange(LENGTH) >= valid).expand(BATCH, LENGTH)


def core(attention, *tensors, **masks):
    """The attention without its projections, on (B H, L, D)."""
    return attention._apply_attention(*tensors, bsz=BATCH, **masks)[0]


def heads_of(count=3, length=LENGTH):
    return [torch.randn(BATCH * HEADS, length, EMBED // HEADS) for _ in range(count)]


def test_c1_causal_abc_mixes_no_tokens(library):
    abc = library.ABC(embed_dim=EMBED, num_heads=HEADS, causal=True).eval()
    q, k, v = heads_of()
    cosine = torch.cosine_similarity(core(abc, q, k, v), v, dim=-1)
    assert cosine.min() > 0.9999


def test_c2_local_attention_sees_padded_keys_and_border_copies(library):
    local = library.LocalAttention(embed_dim=EMBED, num_heads=HEADS, wsize=15).eval()
    x, mask = inputs(), padding(30)
    changed = x.clone()
    changed[:, 30:] += 5.0
    out, noisy = (run(local, y, key_padding_mask=mask)[:, :30] for y in (x, changed))
    assert (out - noisy).abs().max() > 1e-2
    # Without any padding, a mask that hides nothing changes the output near the border.
    none = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    assert (run(local, x) - run(local, x, key_padding_mask=none))[:, 0].abs().max() > 1e-2


def test_c3_performer_trains_and_tests_with_different_features(library):
    performer = library.Performer(embed_dim=EMBED, num_heads=HEADS)
    assert "eval_proj" not in performer.state_dict()
    eval_proj = performer.eval_proj
    assert (eval_proj[0] @ eval_proj[0].T).fill_diagonal_(0).abs().max() < 1e-4  # orthogonal
    performer.train()
    x = inputs()
    assert not torch.equal(run(performer, x), run(performer, x))  # drawn anew at every call
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        causal = library.Performer(embed_dim=EMBED, num_heads=HEADS, causal=True)
    assert not causal.causal
    assert any("causal leakage" in str(w.message) for w in caught)


def test_c4_nystromformer_couples_the_sequences_of_a_batch(library):
    nystrom = library.NystromAttention(embed_dim=EMBED, num_heads=HEADS).eval()
    x = inputs()
    other = x.clone()
    other[1:] *= 8.0
    assert (run(nystrom, x) - run(nystrom, other))[0].abs().max() > 1e-4


def test_c4_nystromformer_averages_zeros_at_padding(library):
    nystrom = library.NystromAttention(embed_dim=EMBED, num_heads=HEADS).eval()
    x = inputs()
    short = run(nystrom, x[:, :30])
    padded = run(nystrom, x, key_padding_mask=padding(30))[:, :30]
    assert (short - padded).abs().max() > 1e-2


def test_c5_lara_weighs_by_padded_keys(library):
    lara = library.Lara(embed_dim=EMBED, num_heads=HEADS, num_landmarks=4).eval()
    q, k, v = heads_of()
    mu, weights = lara.lara.sample_weights(q, k)
    changed = k.clone()
    changed[:, 30:] *= 3.0
    # The same landmarks for both, so that only the importance ratio can tell them apart.
    out, noisy = (
        lara.lara.compute_lara(q, keys, v, mu, weights, padding(30)) for keys in (k, changed)
    )
    assert (out - noisy).abs().max() > 1e-3


def test_c6_probsparse_is_random_in_eval_and_blind_to_padding(library):
    sparse = library.ProbSparse(embed_dim=EMBED, num_heads=HEADS, factor=1).eval()
    x = inputs()
    assert not torch.equal(run(sparse, x), run(sparse, x))
    torch.manual_seed(1)
    free = run(sparse, x)
    torch.manual_seed(1)
    masked = run(sparse, x, key_padding_mask=padding(10))
    assert torch.equal(free, masked)


def test_c7_flash_attention_cannot_be_built(library, monkeypatch):
    kernels = types.ModuleType("flash_attn.modules.mha")
    kernels.FlashSelfAttention = kernels.FlashCrossAttention = lambda *_, **__: torch.nn.Identity()
    for name in ("flash_attn", "flash_attn.modules"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.modules.mha", kernels)
    module = importlib.import_module("efficient_attention.modules.flash_attn")
    with pytest.raises(AttributeError, match="k_proj"):
        module.FlashAttention(embed_dim=EMBED, num_heads=HEADS)
    assert "FlashAttention" not in library.AVAILABLE_ATTENTIONS


def test_c8_causal_long_short_attends_to_empty_memory(library, monkeypatch):
    attention = library.CausalLS(
        embed_dim=EMBED, num_heads=HEADS, chunk_size=8, window_size=8, mem_len=64
    ).eval()
    softmax, seen = torch.nn.functional.softmax, []

    def spy(x, *args, **kwargs):
        seen.append(x)
        return softmax(x, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "softmax", spy)
    run(attention, inputs(16))
    joint = max(seen, key=lambda x: x.shape[-1])
    # Of the first query: all eight chunks of the empty memory are open, its own two are not.
    assert joint.flatten(0, -2)[0, :10].isfinite().tolist() == [True] * 8 + [False] * 2


def test_c9_s4d_is_causal_by_default_and_blind_to_padding_keys_and_values(library):
    s4d = library.S4D(EMBED, num_heads=HEADS, transposed=False).eval()
    x = inputs()
    later = x.clone()
    later[:, 20:] += 1.0
    assert torch.allclose(run(s4d, x)[:, :20], run(s4d, later)[:, :20], atol=1e-5)
    noise = torch.randn_like(x)
    assert torch.equal(s4d(x, noise, noise, batch_first=True)[0], run(s4d, x))
    assert torch.equal(run(s4d, x, key_padding_mask=padding(5)), run(s4d, x))

    def parameters(cls):
        return sum(p.numel() for p in cls(64, num_heads=8).parameters())

    layer = 12 * 64**2
    assert parameters(library.S4D) - parameters(library.MultiheadAttention) > 0.3 * layer


def test_c10_cosformer_ignores_padding(library):
    cosformer = library.CosformerAttention(embed_dim=EMBED, num_heads=HEADS).eval()
    x = inputs()
    assert torch.equal(run(cosformer, x, key_padding_mask=padding(10)), run(cosformer, x))


def script(*parts):
    """A file of the repository that the library lies in."""
    return os.path.join(os.path.abspath(LIBRARY), "..", *parts)


def text_of(*parts):
    with open(script(*parts), encoding="utf-8") as file:
        return file.read()


def test_c11_the_latency_script_never_waits_for_the_device():
    text = text_of("scripts", "efficiency_length", "efficiency_test.py")
    assert ".cuda()" in text
    assert "synchronize" not in text
    assert "Event(" not in text
    assert "reset_peak" not in text  # the peak is that of the process since its start
    assert ".eval()" not in text  # dropout and autograd are on
    assert "backward" not in text


def test_c12_the_causality_test_sees_the_second_half_only(library):
    path = script("scripts", "attention_pattern", "test_available_pattern_for_attention.py")
    spec = importlib.util.spec_from_file_location("pattern_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.batch_size, module.tgt_len, module.dim = 2, 20, 4

    class LooksAhead(torch.nn.Module):
        """Every token sees the tenth, whoever is first."""

        def forward(self, x, batch_first):
            return (x + x[:, min(9, x.shape[1] - 1), None],)

    assert module.test_self_causal(LooksAhead())


def test_c13_an_install_lacks_the_modules():
    assert "packages=['efficient_attention']" in text_of("efficient-attention", "setup.py")


def test_c14_vanilla_super_resolution_is_another_network():
    text = text_of("tasks", "SR", "sr_sr3_16_128.json")
    assert "Softmax Attention attn_res are set to [16,32,64]" in text
