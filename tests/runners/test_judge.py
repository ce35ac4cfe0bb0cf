"""Timed calls of every entry pass the gate in every phase; inputs and contexts are as told."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

import cab
from cab.errors import ContractError
from runners.efficiency.calls import PHASES, CallFactory
from runners.efficiency.inputs import NumberPool
from runners.efficiency.judge import Judge, Pace
from runners.efficiency.latency import Witness, measure_latency
from runners.efficiency.settings import EfficiencySettings
from runners.outcome import UnsupportedError

HEADS, DIM = 2, 16
CASES = [(info.id, pattern) for info in cab.attentions() for pattern in info.patterns]
NAMES = {"ids": lambda x: getattr(x, "abbreviation", x)}


def setup(name, pattern, phase, length, patience=0.1):
    def build():
        torch.manual_seed(0)
        return cab.attention(
            name, pattern=pattern, heads=HEADS, head_dim=DIM, embed_dim=HEADS * DIM,
            max_length=1024,
        ).eval()  # fmt: skip

    settings = EfficiencySettings((length,), 1, HEADS, DIM, torch.float32, 0.0, 1)
    generator, order = torch.Generator().manual_seed(0), random.Random(0)
    calls = CallFactory(settings, length, phase, torch.device("cpu"), generator, order)
    module = build()
    return module, calls, settings, Judge(module, build, order, patience)


@pytest.mark.parametrize(("name", "pattern"), CASES, **NAMES)
def test_every_entry_passes_in_every_phase(name, pattern):
    for phase in PHASES:
        module, calls, settings, judge = setup(name, pattern, phase, 160)
        if phase == "decode" and not (pattern.causal and module.decodes()):
            with pytest.raises(UnsupportedError):
                calls.prepare(module)
            continue
        samples = measure_latency(module, {}, calls, settings, random.Random(0))
        verdict = judge.check(samples.witness, decoding=phase == "decode")
        assert verdict.error < 1e-4


ROUTES_BLOCKS = [("psa", "CC"), ("psa", "NC"), ("dhsa", "NC"), ("biformer-bra", "NC")]


@pytest.mark.parametrize(("name", "pattern"), ROUTES_BLOCKS)
def test_rows_that_depend_on_other_queries_convict_nobody(name, pattern):
    # Where the machine is slow, single rows are compared, and 160 queries route otherwise than 8.
    module, calls, settings, judge = setup(name, pattern, "forward", 160)
    samples = measure_latency(module, {}, calls, settings, random.Random(0))
    judge._gives_rows, judge._probed = True, 160
    judge._whole, judge._rows = Pace(), Pace()
    judge._whole.took(1, 60.0)
    judge._rows.took(1000, 0.0)
    assert judge.check(samples.witness).how == "reference"
    assert not judge._gives_rows
    # And what is wrong is found to be.
    out = samples.witness.snapshot.roll(1, dims=-2)
    judge._gives_rows = True
    with pytest.raises(ContractError, match="differs from the reference by"):
        judge.check(replace(samples.witness, out=out, snapshot=out))


@pytest.mark.parametrize(
    ("name", "pattern", "how"),
    [
        ("softmax", "NS", "reference (some rows)"),
        ("softmax", "CS", "reference (some rows)"),
        ("softmax", "CC", "reference (some rows)"),
        ("nystromformer", "NS", "other shape"),
        ("nystromformer", "NC", "other shape"),
    ],
)
def test_long_calls_are_held_to_what_can_be_had(name, pattern, how):
    module, calls, settings, judge = setup(name, pattern, "forward", 512)
    samples = measure_latency(module, {}, calls, settings, random.Random(0))
    # The whole reference would take too long; rows of it would not.
    judge._whole, judge._rows = Pace(), Pace()
    judge._whole.took(512, 1e6)
    judge._rows.took(512, 0.0)
    assert judge.check(samples.witness).how == how
    # Every fourth row is spoilt: the last one with them.
    spoilt = samples.witness.snapshot.clone()
    spoilt[..., 3::4, :] *= 1.1
    with pytest.raises(ContractError, match="differs from the"):
        judge.check(Witness(samples.witness.inputs, spoilt, spoilt))
    spoilt[..., -1, :] = float("nan")
    with pytest.raises(ContractError, match="differs from the"):
        judge.check(Witness(samples.witness.inputs, spoilt, spoilt.clone()))


def test_other_parameters_from_the_same_seed_are_noticed():
    module = setup("lla", "CS", "forward", 64)[0]
    other = cab.attention(
        "lla", pattern="CS", heads=HEADS, head_dim=DIM, embed_dim=HEADS * DIM, ridge=2.0
    )
    with pytest.raises(ContractError, match="building it twice"):
        Judge(module, lambda: other, random.Random(0))


def test_inputs_differ_from_call_to_call_and_from_each_other():
    pool = NumberPool(
        4096, 16, torch.device("cpu"), torch.float32, torch.Generator().manual_seed(0),
        random.Random(0),
    )  # fmt: skip
    cuts = [pool.cut(1, 2, 128, 16) for _ in range(20)]
    assert len({float(cut.sum()) for cut in cuts}) == 20
    for a, b in itertools.pairwise(cuts):
        # No row of one is a row of the next: they start at different columns.
        assert not (a.reshape(-1, 1, 16) == b.reshape(1, -1, 16)).all(-1).any()
        assert abs(float((a * b).mean())) < 0.1
    whole = torch.cat([cut.flatten() for cut in cuts])
    assert abs(float(whole.mean())) < 0.1
    assert float(whole.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_decoding_calls_go_on_from_their_context(pattern):
    module, calls, _, judge = setup("softmax", pattern, "decode", 64)
    seen = set()
    for _ in range(5):
        call = calls.prepare(module)
        out = call()
        inputs = call.inputs()
        keys = inputs.k.shape[-2]
        assert out.shape[-2] == inputs.q.shape[-2] == calls.tokens
        # The context stays within a sixteenth of its nominal length.
        assert 64 <= keys <= 64 + 64 // 16
        seen.add(keys)
        judge.check(Witness(inputs, out, out.clone()), decoding=True)
    assert seen == ({64} if pattern == "CC" else {68})


def test_a_baseline_that_fails_sits_out():
    class Hungry(cab.Attention):
        def forward(self, q, k, v, context=None):
            raise MemoryError("no room")

    module, calls, settings, _ = setup("softmax", "NS", "forward", 64)
    hungry = {"hungry": Hungry(module.spec)}
    samples = measure_latency(module, hungry, calls, settings, random.Random(0))
    assert samples.sat_out == {"hungry": "MemoryError: no room"}
    assert samples.candidate
    assert samples.ratios("hungry") == []


def test_source_length_is_the_keys_of_cross_attention_alone():
    settings = EfficiencySettings((32,), 1, HEADS, DIM, torch.float32, 0.0, 1, source_length=96)
    generator = torch.Generator().manual_seed(0)
    calls = CallFactory(settings, 32, "forward", torch.device("cpu"), generator)
    for pattern, keys in (("NC", 96), ("NS", 32)):
        module = cab.attention("softmax", pattern=pattern, heads=HEADS, head_dim=DIM)
        assert calls.prepare(module).inputs().k.shape[-2] == keys
        assert calls.prepare(module)().shape[-2] == 32


def test_references_run_on_one_thread_and_calls_on_all_of_theirs():
    module, calls, settings, judge = setup("softmax", cab.Pattern.CAUSAL_SELF, "forward", 64)
    seen = []
    reference = judge._exact.reference

    def watched(*args):
        seen.append(torch.get_num_threads())
        return reference(*args)

    judge._exact.reference = watched
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        samples = measure_latency(module, {}, calls, settings, random.Random(0))
        judge.check(samples.witness, patient=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
