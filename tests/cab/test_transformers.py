"""Our attentions in small, randomly initialised GPT-2 and Llama models of transformers."""

import copy
import functools
import gc
import inspect

import pytest
import torch

import cab
from cab.errors import UnsupportedPatternError, UsageError

transformers = pytest.importorskip("transformers")
from cab.integrations import decoding  # noqa: E402
from cab.integrations import transformers as ours  # noqa: E402

KINDS = ("gpt2", "llama")
DECODES, DOES_NOT = ("linear-elu", "lla", "gated-deltanet"), ("affine-scaled",)
READS_INPUTS = ("gated-softmax",)


@pytest.fixture(scope="module", autouse=True)
def registered():
    return ours.register()


def config_of(kind, **changes):
    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            **changes,
        )  # fmt: skip
    return transformers.LlamaConfig(
        vocab_size=50, max_position_embeddings=64, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, bos_token_id=0,
        eos_token_id=0, pad_token_id=0, **changes,
    )  # fmt: skip


def model_of(kind, implementation, **changes):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        config_of(kind, **changes), attn_implementation=implementation
    )
    if implementation.startswith("cab:"):
        ours.attach(model)
    return model.eval()


def prompt(batch=3, length=9):
    ids = torch.randint(1, 50, (batch, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :4], mask[2, :1] = 0, 0  # padding stands on the left where one generates
    return ids * mask, mask


def labels_of(ids, mask):
    """Of tokens that follow a valid one: what a query that is padding predicts means nothing."""
    follows = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    return ids.masked_fill(mask * follows == 0, -100)


def generated(model, **options):
    ids, mask = prompt()
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False} | options
    return model.generate(
        ids, attention_mask=mask, output_logits=True, return_dict_in_generate=True, **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_softmax_through_us_is_eager(kind):
    model, eager = model_of(kind, "cab:softmax"), model_of(kind, "eager")
    ids, mask = prompt()
    got, want = (m(ids, attention_mask=mask).logits for m in (model, eager))
    torch.testing.assert_close(got[mask.bool()], want[mask.bool()], rtol=1e-5, atol=1e-5)
    slopes = []
    for m in (model, eager):
        m(ids, attention_mask=mask, labels=labels_of(ids, mask)).loss.backward()
        slopes.append([p.grad for p in m.parameters()])
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}]
)
def test_softmax_generates_what_eager_generates(kind, options):
    got, want = (generated(model_of(kind, name), **options) for name in ("cab:softmax", "eager"))
    assert got.sequences.equal(want.sequences)
    if not options:
        torch.testing.assert_close(
            torch.stack(got.logits), torch.stack(want.logits), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*DECODES, *DOES_NOT, *READS_INPUTS])
def test_generation_with_a_cache_is_the_parallel_form(kind, name, monkeypatch):
    model = model_of(kind, f"cab:{name}")
    attention = model.get_submodule(first_slot(model)).attention
    steps = []
    if name in DECODES:
        monkeypatch.setattr(type(attention), "step", counting(type(attention).step, steps))
    out = generated(model)
    ids, mask = out.sequences, torch.cat([prompt()[1], torch.ones(3, 12, dtype=torch.int64)], 1)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask, position_ids=places, use_cache=False).logits
    torch.testing.assert_close(torch.stack(out.logits, 1), whole[:, 8:-1], rtol=1e-3, atol=1e-4)
    if name in DECODES:
        assert len(steps) == 2 * 11  # layers, and every token after the first


def counting(step, calls):
    @functools.wraps(step)
    def counted(*args, **kwargs):
        calls.append(1)
        return step(*args, **kwargs)

    return counted


def first_slot(model):
    return next(name for name, _ in model.named_modules() if name.endswith("cab_attention"))


@pytest.mark.parametrize("name", DECODES)
def test_beams_and_crops_change_no_state_unseen(name):
    """Beam search reorders the cache; what it finds is what it finds without a cache."""
    model = model_of("llama", f"cab:{name}")
    got, want = (generated(model, num_beams=3, use_cache=cached) for cached in (True, False))
    assert got.sequences.equal(want.sequences)
    ids = prompt()[0][:1]
    cache = transformers.DynamicCache(config=model.config)
    named = {"cache", "past_key_values"} & {*inspect.signature(model.forward).parameters}
    held = {named.pop(): cache, "use_cache": True}
    with torch.no_grad():
        for place in range(9):  # token by token
            model(ids[:, place : place + 1], **held)
        assert isinstance(cache, transformers.DynamicCache)
        cache.crop(-4)
        kept = cache.get_seq_length()
        assert 0 < kept < 9
        again = model(ids[:, kept : kept + 1], **held).logits
        want = model(ids[:, : kept + 1], use_cache=False).logits[:, -1:]
    torch.testing.assert_close(again, want, rtol=1e-3, atol=1e-4)


def test_states_go_with_their_cache():
    model = model_of("llama", "cab:linear-elu")
    generated(model)
    gc.collect()
    assert not decoding.PASTS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lla", "gated-deltanet", "gated-softmax"])
def test_an_entry_with_parameters_trains_is_saved_and_generates(kind, name, tmp_path):
    model = model_of(kind, f"cab:{name}").train()
    own = [n for n, _ in model.named_parameters() if ".cab_attention." in n]
    assert own
    ids, mask = prompt()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(ids, attention_mask=mask, labels=labels_of(ids, mask)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    before = dict(model_of(kind, f"cab:{name}").named_parameters())
    assert any(not torch.equal(before[n], p) for n, p in model.named_parameters() if n in own)
    model.eval()
    other = model_of(kind, f"cab:{name}")
    other.load_state_dict(model.state_dict())
    assert generated(other).sequences.equal(generated(model).sequences)
    assert generated(copy.deepcopy(model)).sequences.equal(generated(model).sequences)


@pytest.mark.parametrize("name", ["lla", "gated-softmax"])
def test_padding_on_the_right_and_gradient_checkpointing(name):
    """What is padded changes nothing before it, and a layer that is run again gives the same."""
    ids, mask = prompt()
    ids, mask = ids.flip(1), mask.flip(1)
    slopes = []
    for again in (False, True):
        model = model_of("llama", f"cab:{name}").train()
        if again:
            model.activation_checkpointing_enable()
        out = model(ids, attention_mask=mask, labels=labels_of(ids, mask), use_cache=False)
        out.loss.backward()
        slopes.append([out.loss.detach(), *(p.grad for p in model.parameters())])
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask, use_cache=False).logits[1, :5]
        alone = model(ids[1:2, :5], use_cache=False).logits[0]
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


def test_options_and_hybrids_have_names_of_their_own():
    (name,) = ours.register("local", name="local-4", window=4)
    assert name == "cab:local-4"
    model = model_of("llama", name)
    assert model.get_submodule(first_slot(model)).attention.window == 4
    (name,) = ours.register("lla:1,linear-elu:1")
    model = model_of("llama", name)
    kinds = [
        type(m.attention).__name__ for n, m in model.named_modules() if n.endswith("cab_attention")
    ]
    assert kinds == ["LocalLinearAttention", "LinearElu"]


def test_another_implementation_is_another_module():
    model = model_of("llama", "cab:lla")
    model.set_attn_implementation("cab:linear-elu")
    ours.attach(model)
    kind = type(model.get_submodule(first_slot(model)).attention)
    assert kind is cab.registries.ATTENTIONS.load(cab.registries.ATTENTIONS.resolve("linear-elu"))
    assert len(model.model.layers[0].self_attn._forward_pre_hooks) == 1


def test_every_causal_entry_is_registered(registered):
    wanted = [i.id for i in cab.attentions() if i.grade(cab.Pattern.CAUSAL_SELF) and i.id != "none"]
    assert registered == [f"cab:{name}" for name in wanted]


def test_what_is_refused():
    with pytest.raises(UnsupportedPatternError):
        ours.register("nystromformer")
    with pytest.raises(UsageError, match="say which attention"):
        ours.register(window=4)
    with pytest.raises(UsageError, match="attn_implementation="):
        ours.attach(model_of("llama", "eager"))
    ids, _ = prompt()
    model = model_of("llama", "cab:softmax", attention_dropout=0.1).train()
    with pytest.raises(NotImplementedError, match="dropout"):
        model(ids)
    model.eval()
    with pytest.raises(NotImplementedError, match="four dimensions"):
        model(ids, attention_mask=torch.zeros(3, 1, 9, 9))
    with pytest.raises(NotImplementedError, match="static caches"):
        generated(model, cache_implementation="static")
    windowed = transformers.MistralConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=4,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(
        windowed, attn_implementation="cab:softmax"
    )
    with pytest.raises(NotImplementedError, match="windows"):
        model(ids)
