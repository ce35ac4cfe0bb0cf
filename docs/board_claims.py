"""Claims of papers that the boards of real tasks can judge; `board_findings` does."""

from __future__ import annotations

from dataclasses import dataclass

from board_expectations import Ahead, AsPublished, BoardExpectation, Carries, Leads, Near

from cab.patterns import Pattern

NS, CS, NC, CC = (
    Pattern.NONCAUSAL_SELF,
    Pattern.CAUSAL_SELF,
    Pattern.NONCAUSAL_CROSS,
    Pattern.CAUSAL_CROSS,
)


@dataclass(frozen=True, kw_only=True)
class BoardFinding:
    """What one paper says, or what one asks, of mechanisms on real tasks."""

    title: str
    source: str
    claim: str
    expectations: tuple[BoardExpectation, ...]


BOARD_FINDINGS: tuple[BoardFinding, ...] = (
    BoardFinding(
        title="Local linear attention on real tasks",
        source="asked of Local Linear Attention, arXiv 2510.01450",
        claim=(
            "A better estimator of the same regression helps wherever softmax attention does: it "
            "leads in causal cross attention and is ahead of softmax in all patterns."
        ),
        expectations=(
            Leads("lla", CC),
            *(Ahead("lla", "softmax", p) for p in (CC, NC, CS, NS)),
            *(Ahead("lla", "linear-elu", p) for p in (CC, NC, CS, NS)),
        ),
    ),
    BoardFinding(
        title="What no attention costs",
        source="CAB, arXiv 2210.07661",
        claim="On the tasks that count, softmax attention is ahead of none in every pattern.",
        expectations=tuple(Ahead("softmax", "none", p) for p in Pattern),
    ),
    BoardFinding(
        title="One pattern and another",
        source="CAB, arXiv 2210.07661",
        claim=(
            "CAB measures four patterns because a mechanism that is good at one need not be at "
            "another; and its own order of nine mechanisms is found on other tasks."
        ),
        expectations=(
            Carries(NS, CS), Carries(NS, NC), Carries(CS, CC), Carries(NC, CC),
            *(AsPublished(p) for p in Pattern),
        ),
    ),
    BoardFinding(
        title="cosFormer: as good as softmax where causal or cross",
        source="cosFormer, arXiv 2202.08791",
        claim="Comparable to softmax attention or better, causally and across.",
        expectations=tuple(Near("cosformer", "softmax", p) for p in (CS, NC, CC)),
    ),
    BoardFinding(
        title="Bounded memory: no loss or next to none",
        source="ABC, arXiv 2110.02488",
        claim="Efficiency with no loss of accuracy against softmax, or a negligible one.",
        expectations=tuple(Near("abc", "softmax", p) for p in Pattern),
    ),
    BoardFinding(
        title="Nyström approximation",
        source="Nyströmformer, arXiv 2102.03902",
        claim="Comparable to softmax self attention.",
        expectations=(Near("nystromformer", "softmax", NS),),
    ),
    BoardFinding(
        title="Randomised attention with less bias",
        source="LARA, arXiv 2204.04667",
        claim="Importance sampling with several proposals improves on random features.",
        expectations=(Ahead("lara", "performer", NS),),
    ),
    BoardFinding(
        title="Injective linear attention with a local residual",
        source="InLine, arXiv 2412.06590",
        claim="Made injective and given a local term, linear attention outperforms softmax.",
        expectations=(
            Ahead("inline", "softmax", NS),
            *(Ahead("inline", "linear-elu", p) for p in Pattern),
        ),
    ),
    BoardFinding(
        title="Linear attention with concentration and windows",
        source="L2ViT, arXiv 2501.16182",
        claim="Enhanced linear attention with windows is ahead of linear attention.",
        expectations=tuple(Ahead("l2vit", "linear-elu", p) for p in (NS, CS)),
    ),
    BoardFinding(
        title="The denominator of softmax, and its Taylor series",
        source="On the Expressiveness of Softmax Attention, arXiv 2507.23632",
        claim=(
            "A norm in the place of the denominator tracks softmax closely; a truncated series "
            "does not catch up with it."
        ),
        expectations=(
            Near("softmax-norm", "softmax", CS),
            Ahead("softmax", "softmax-taylor", CS),
        ),
    ),
    BoardFinding(
        title="Scaling the weights of softmax",
        source="Affine-Scaled Attention, arXiv 2602.23057",
        claim="Weights that are scaled and shifted by the input do better than softmax's.",
        expectations=(Ahead("affine-scaled", "softmax", CS),),
    ),
    BoardFinding(
        title="Windows at distances of powers of two",
        source="PowerAttention, arXiv 2503.03588",
        claim="Better than a window of the same cost, and near to dense attention.",
        expectations=(
            Ahead("power-attention", "local", CS),
            Near("power-attention", "softmax", CS),
        ),
    ),
    BoardFinding(
        title="Routing by content",
        source="Routing Transformer, arXiv 2003.05997; BiFormer, arXiv 2303.08810",
        claim="Clusters of like tokens are worth more than neighbours; regions are near to dense.",
        expectations=(
            Ahead("routing", "local", CS),
            Ahead("routing", "local", NS),
            Near("biformer-bra", "softmax", NS),
        ),
    ),
    BoardFinding(
        title="Sparse attention at next to no loss",
        source=(
            "Pyramid Sparse Attention, arXiv 2512.04025; Rectified SpaAttn, arXiv 2511.19835; "
            "DHSA, arXiv 2510.24606; PAROAttention, arXiv 2506.16054"
        ),
        claim="A part of the blocks, chosen by content, does as well as all of them.",
        expectations=(
            *(Near("psa", "softmax", p) for p in Pattern),
            *(Near("rectified-spa", "softmax", p) for p in Pattern),
            *(Near("dhsa", "softmax", p) for p in Pattern),
            Near("paro", "softmax", NS),
        ),
    ),
    BoardFinding(
        title="Recurrence within chunks, attention between them",
        source="RAT, arXiv 2507.04416",
        claim="Comparable to softmax attention.",
        expectations=(Near("rat", "softmax", CS), Ahead("rat", "linear-elu", CS)),
    ),
    BoardFinding(
        title="What attention must have",
        source="Deconstructing Attention, arXiv 2510.11602",
        claim=(
            "Mixing tokens is indispensable; the exact form and queries and keys of the input are "
            "less so."
        ),
        expectations=(
            Ahead("softmax", "decon-mlp", CS),
            *(
                Ahead(f"decon-{name}", "decon-mlp", CS)
                for name in ("approx", "nonapprox", "rnd-qk", "fixedseq-qk", "static-qk")
            ),
            Ahead("softmax", "decon-static-qk", CS),
            Ahead("decon-static-qk", "decon-rnd-qk", CS),
        ),
    ),
    BoardFinding(
        title="Positions as wavelets",
        source="Wavelet-based Positional Representation, arXiv 2502.02004",
        claim="Better within the length of training, too.",
        expectations=(Ahead("wavelet-pe", "softmax", CS),),
    ),
)  # fmt: skip
