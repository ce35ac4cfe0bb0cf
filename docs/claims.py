"""Claims of papers, as expectations on what the probes measure; `build_findings` judges them."""

from __future__ import annotations

from expectations import Better, Improves, LosesMore, RatioGrows, Reaches, Within
from finding import Finding

LLA = "Local Linear Attention, arXiv 2510.01450"
FOUR = ("lla", "softmax", "linear-elu", "none")
THREE = FOUR[1:]

FINDINGS: tuple[Finding, ...] = (
    Finding(
        title="Recall: softmax keeps pairs apart, linear attention mixes them",
        source="Zoology, arXiv 2312.04927; " + LLA,
        claim=(
            "Softmax attention is near perfect on associative recall, linear attention fails as "
            "pairs grow, and LLA leads."
        ),
        task="associative-recall",
        pattern="causal-self",
        entries=("lla", "softmax", "performer", "linear-elu", "abc", "local", "none"),
        metrics=(
            "accuracy",
            "accuracy_4_pairs",
            "accuracy_16_pairs",
            "accuracy_64_pairs",
            "state_size",
        ),
        references=("@look-up", "@chance"),
        expectations=(
            Reaches("softmax", "accuracy_64_pairs", 0.95),
            Better("softmax", "linear-elu", "accuracy_64_pairs"),
            LosesMore("linear-elu", "softmax", "accuracy_4_pairs", "accuracy_64_pairs"),
            LosesMore("performer", "softmax", "accuracy_4_pairs", "accuracy_64_pairs"),
            Better("lla", "softmax", "accuracy"),
        ),
    ),
    Finding(
        title="Recall from a source",
        source="Zoology, arXiv 2312.04927",
        claim="The same with the pairs in a source that queries attend to.",
        task="associative-recall",
        pattern="noncausal-cross",
        entries=FOUR,
        metrics=("accuracy", "accuracy_4_pairs", "accuracy_16_pairs", "accuracy_64_pairs"),
        references=("@look-up", "@chance"),
        expectations=(
            Reaches("softmax", "accuracy_64_pairs", 0.95),
            Better("softmax", "linear-elu", "accuracy_64_pairs"),
            LosesMore("linear-elu", "softmax", "accuracy_4_pairs", "accuracy_64_pairs"),
            Better("lla", "softmax", "accuracy"),
        ),
    ),
    Finding(
        title="Test-time regression: what softmax does not learn within a segment",
        source=LLA,
        claim=(
            "LLA keeps improving inside every segment and beats the others; the Mesa layer is best "
            "in the first segment only and suffers from shifts; softmax does not profit from more "
            "data of a segment; the advantage of LLA over softmax grows with the dimension."
        ),
        remark=(
            "The Mesa layer is not registered yet: *mesa* is its closed form, ridge regression on "
            "all pairs so far, as a reference. *oracle-least-squares* knows where segments begin."
        ),
        task="test-time-regression",
        pattern="causal-self",
        entries=FOUR,
        metrics=(
            "mse",
            "mse_first_segment",
            "mse_early",
            "mse_late",
            "mse_s256_d8",
            "mse_s256_d64",
            "mse_s32_d16",
        ),
        references=("@oracle-least-squares", "@mesa", "@zero"),
        expectations=(
            Better("lla", "softmax", "mse"),
            Better("lla", "linear-elu", "mse"),
            Better("@mesa-first-segment", "lla", "mse_first_segment"),
            Better("lla", "@mesa-late", "mse_late"),
            Improves("lla", "mse_early", "mse_late"),
            RatioGrows("lla", "softmax", "mse_early", "mse_late"),
            RatioGrows("lla", "softmax", "mse_s256_d8", "mse_s256_d32"),
            RatioGrows("lla", "softmax", "mse_s256_d32", "mse_s256_d64"),
        ),
    ),
    Finding(
        title="In-context regression with trained projections",
        source=LLA,
        claim=(
            "LLA is best at every segment length, and its advantage over softmax is larger for "
            "short segments."
        ),
        task="in-context-regression",
        pattern="causal-self",
        entries=FOUR,
        metrics=("mse", "mse_s16", "mse_s32", "mse_s64", "mse_s128"),
        references=("@oracle-least-squares", "@mesa", "@zero"),
        expectations=(
            Better("lla", "softmax", "mse_s16"),
            Better("lla", "softmax", "mse_s128"),
            Better("lla", "linear-elu", "mse_s128"),
            RatioGrows("lla", "softmax", "mse_s128", "mse_s16"),
        ),
    ),
    Finding(
        title="In-context linear regression: how near to Bayes",
        source="In-Context Linear Regression Demystified, arXiv 2503.12734",
        claim=(
            "One trained layer of softmax heads implements a debiased gradient step: near that "
            "step's risk, a constant factor from Bayes, and it carries over to longer prompts "
            "better than linear attention."
        ),
        task="in-context-linear-regression",
        pattern="noncausal-cross",
        entries=FOUR,
        metrics=("excess_risk", "excess_risk_2x", "excess_risk_4x", "excess_risk_anisotropic"),
        references=("@bayes", "@debiased-step", "@gradient-step", "@zero"),
        expectations=(
            Better("softmax", "@zero", "excess_risk"),
            Better("@bayes", "softmax", "excess_risk"),
            Within("softmax", "@debiased-step", "excess_risk", 0.05),
            Better("lla", "@gradient-step", "excess_risk"),
            Better("@bayes", "lla", "excess_risk"),
            Improves("softmax", "excess_risk", "excess_risk_4x"),
            LosesMore("linear-elu", "softmax", "excess_risk", "excess_risk_4x"),
        ),
    ),
    Finding(
        title="State tracking: no better with a better regressor",
        source=LLA,
        claim=(
            "LLA is on par with softmax on sequences of swaps and permutations: both are within "
            "TC0, so both lose track as the sequence grows."
        ),
        task="state-tracking",
        pattern="causal-self",
        entries=FOUR,
        metrics=(
            "accuracy",
            "accuracy_step_1",
            "accuracy_step_4",
            "accuracy_step_16",
        ),
        references=("@tracker", "@last-four", "@last-two", "@memoryless", "@chance"),
        expectations=(
            Within("lla", "softmax", "accuracy", 0.05),
            Improves("softmax", "accuracy_step_16", "accuracy_step_1"),
            Improves("lla", "accuracy_step_16", "accuracy_step_1"),
            Better("@tracker", "softmax", "accuracy"),
            Better("@tracker", "lla", "accuracy"),
        ),
    ),
    Finding(
        title="Recall: a delta rule replaces what a sum only adds to",
        source="DeltaNet, arXiv 2406.06484; Gated DeltaNet, arXiv 2412.06464",
        claim=(
            "Delta rules recall pairs that gated linear attention with a state of the same size "
            "mixes up."
        ),
        task="associative-recall",
        pattern="causal-self",
        entries=("deltanet", "gated-deltanet", "kda", "gla", "mamba2-ssd", "retnet", "softmax"),
        metrics=("accuracy", "accuracy_4_pairs", "accuracy_16_pairs", "accuracy_64_pairs"),
        references=("@look-up", "@chance"),
        expectations=(
            Better("deltanet", "gla", "accuracy"),
            Better("gated-deltanet", "mamba2-ssd", "accuracy"),
            Better("kda", "gla", "accuracy"),
            Better("deltanet", "retnet", "accuracy"),
        ),
    ),
    Finding(
        title="State tracking: reflections of the state",
        source="DeltaProduct, arXiv 2502.10297",
        claim=(
            "Several delta steps a token, with eigenvalues down to -1, track permutations where "
            "softmax attention and single steps lose track."
        ),
        task="state-tracking",
        pattern="causal-self",
        entries=("gated-deltaproduct", "gated-deltanet", "softmax", "none"),
        metrics=("accuracy", "accuracy_step_1", "accuracy_step_4", "accuracy_step_16"),
        references=("@tracker", "@memoryless", "@chance"),
        expectations=(
            Better("gated-deltaproduct", "softmax", "accuracy"),
            Better("gated-deltaproduct", "gated-deltanet", "accuracy"),
        ),
    ),
    Finding(
        title="In-context regression: a layer that solves it",
        source="MesaNet, arXiv 2506.05233",
        claim="A layer that solves the ridge regression in context is near the ridge solution.",
        task="in-context-linear-regression",
        pattern="noncausal-cross",
        entries=("mesanet", "deltanet", "softmax", "linear-elu"),
        metrics=("excess_risk", "excess_risk_2x", "excess_risk_4x"),
        references=("@bayes", "@gradient-step", "@zero"),
        expectations=(
            Better("mesanet", "softmax", "excess_risk"),
            Better("mesanet", "@gradient-step", "excess_risk"),
            Within("mesanet", "@bayes", "excess_risk", 0.05),
        ),
    ),
    Finding(
        title="Passkey: how far retrieval reaches",
        source="PowerAttention, arXiv 2503.03588",
        claim=(
            "Full attention retrieves over the whole trained length; a sliding window fails as "
            "soon as the needle leaves it."
        ),
        task="passkey",
        pattern="causal-self",
        entries=("softmax", "lla", "linear-elu", "local", "none"),
        metrics=("accuracy", "accuracy_64", "accuracy_256", "accuracy_1024", "effective_length"),
        references=("@look-up", "@chance"),
        expectations=(
            Reaches("softmax", "accuracy", 0.95),
            Better("softmax", "local", "accuracy"),
            Better("softmax", "linear-elu", "accuracy"),
        ),
    ),
    Finding(
        title="Algorithms on lists: values beyond the training range",
        source="Positional Attention, arXiv 2410.01686",
        claim="With softmax attention the error grows when values are larger than in training.",
        task="algorithmic",
        pattern="noncausal-self",
        entries=THREE,
        metrics=("nmse", "nmse_scale_2", "nmse_scale_4", "nmse_scale_8", "nmse_length_2"),
        references=("@best-linear", "@best-constant"),
        expectations=(
            Better("softmax", "@best-linear", "nmse"),
            Improves("softmax", "nmse_scale_8", "nmse"),
            Improves("softmax", "nmse_length_2", "nmse"),
        ),
    ),
    Finding(
        title="ListOps: mean pooling and attentive pooling",
        source="Long Range Arena, arXiv 2011.04006; Efficient Probing, arXiv 2506.10178",
        claim="Attention helps, and an attentive readout of the same encoder beats mean pooling.",
        task="listops",
        pattern="noncausal-self",
        entries=THREE,
        metrics=("accuracy", "accuracy_ep", "accuracy_depth_1", "accuracy_depth_3"),
        references=("@evaluator", "@root-operator", "@majority-class"),
        expectations=(
            Better("softmax", "none", "accuracy"),
            Improves("softmax", "accuracy", "accuracy_ep"),
            Improves("none", "accuracy", "accuracy_ep"),
        ),
    ),
    Finding(
        title="Digits as pixels: mean pooling and attentive pooling",
        source="Long Range Arena, arXiv 2011.04006; Efficient Probing, arXiv 2506.10178",
        claim="Attention helps, and an attentive readout of the same encoder beats mean pooling.",
        task="pixel-classification",
        pattern="noncausal-self",
        entries=THREE,
        metrics=("accuracy", "accuracy_ep"),
        references=("@ridge-regression", "@chance"),
        expectations=(
            Better("softmax", "none", "accuracy"),
            Better("softmax", "@ridge-regression", "accuracy"),
            Improves("softmax", "accuracy", "accuracy_ep"),
        ),
    ),
    Finding(
        title="Irregular series: attention over time stamps",
        source="mTAND in irregular multimodal modelling, arXiv 2210.12156",
        claim="Attention over irregular observations beats interpolation.",
        task="irregular-series",
        pattern="noncausal-cross",
        entries=THREE,
        metrics=("mse", "mse_sparse", "mse_dense", "mse_ahead"),
        references=("@kriging", "@linear", "@last-observation"),
        expectations=(
            Better("softmax", "@last-observation", "mse"),
            Better("softmax", "@linear", "mse"),
            Better("softmax", "@kriging", "mse"),
        ),
    ),
    Finding(
        title="Missing variables: forecasts from those that are left",
        source="GinAR, arXiv 2405.11333",
        claim="Attention over variables copes with up to 90 % of them missing.",
        task="missing-variables",
        pattern="noncausal-cross",
        entries=THREE,
        metrics=("mse", "mse_25", "mse_50", "mse_75", "mse_90"),
        references=("@ridge", "@calendar", "@training-mean"),
        expectations=(
            Better("softmax", "@calendar", "mse"),
            Better("softmax", "@ridge", "mse"),
            Improves("softmax", "mse_90", "mse_25"),
        ),
    ),
    Finding(
        title="Upsampling at positions between pixels",
        source="UPLiFT, arXiv 2601.17950; SymPoint, arXiv 2401.10556",
        claim="Attention from continuous positions beats parameter-free interpolation.",
        task="upsampling",
        pattern="noncausal-cross",
        entries=THREE,
        metrics=("mse", "psnr", "psnr_x2", "psnr_x4", "psnr_x6"),
        references=("@bicubic", "@bilinear", "@inverse-distance"),
        expectations=(
            Better("softmax", "@inverse-distance", "mse"),
            Better("softmax", "@bicubic", "mse"),
        ),
    ),
    Finding(
        title="Scanpaths: how near to the searcher that made them",
        source="OAT, arXiv 2407.13335",
        claim="A pointer over attended objects predicts the next fixation.",
        task="scanpath",
        pattern="causal-cross",
        entries=THREE,
        metrics=("nll", "accuracy", "similarity"),
        references=("@searcher", "@uniform"),
        expectations=(
            Better("softmax", "@uniform", "nll"),
            Better("softmax", "none", "nll"),
            Within("softmax", "@searcher", "nll", 0.1),
        ),
    ),
    Finding(
        title="Training-free modifications of the map",
        source="ACT, arXiv 2406.15765; VAR, arXiv 2503.03321; modPAI, arXiv 2501.12206",
        claim="Moving weight away from attention sinks after training improves a model.",
        remark=(
            "These were made for large pre-trained models, whose sinks a small model of a minute "
            "need not have."
        ),
        task="language-modeling",
        pattern="causal-self",
        entries=("softmax", "softmax+act-calib", "softmax+var-redist", "softmax+modpai"),
        metrics=("bits_per_byte", "attention_entropy", "attention_distance"),
        expectations=(
            Better("softmax+act-calib", "softmax", "bits_per_byte"),
            Better("softmax+var-redist", "softmax", "bits_per_byte"),
            Better("softmax+modpai", "softmax", "bits_per_byte"),
        ),
    ),
    Finding(
        title="Disturbed queries: the adversary and chance",
        source="Attention Meets Perturbations, arXiv 2009.12064",
        claim=(
            "A disturbance along the gradient raises the loss far more than a random one of the "
            "same size."
        ),
        remark=(
            "LLA's paper reports that it is sensitive to low precision; its correction of the "
            "local mean follows the query, so a disturbed query moves it further."
        ),
        task="language-modeling",
        pattern="causal-self",
        entries=("softmax", "lla", "linear-elu"),
        metrics=(
            "loss_rise_adversarial_0.1",
            "loss_rise_random_0.1",
            "loss_rise_adversarial_0.5",
            "loss_rise_random_0.5",
        ),
        expectations=(
            Improves("softmax", "loss_rise_adversarial_0.5", "loss_rise_random_0.5"),
            Improves("lla", "loss_rise_adversarial_0.5", "loss_rise_random_0.5"),
            Better("softmax", "lla", "loss_rise_adversarial_0.5"),
        ),
    ),
)
