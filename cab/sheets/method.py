"""How the numbers of a report are made: terms and what they mean."""

from __future__ import annotations

METHOD = (
    ("Index",
     "Per metric and seed the log-ratio to softmax, trained with the same seed, data order and "
     "initial weights, signed so that more is better and limited to a factor of 100; the median "
     "over a task's headline metrics, the mean over tasks. +0.1 is about 10 % better. Overall: the "
     "mean over patterns."),
    ("Intervals",
     "95 %. The wide one treats tasks as a sample of their kind (Student's t over tasks), the one "
     "called these tasks repeats the same tasks under other seeds (Welch and Satterthwaite over "
     "seeds). Costs: over processes, in the logarithm."),
    ("What is distinguishable",
     "Paired t tests. = marks an entry that is not distinguishable from the one above, ~ one that "
     "differs on these tasks only. Ranks are intervals. Bars in the pictures and the table of "
     "pairs correct all pairs of a board together (Holm)."),
    ("What a board can tell",
     "Signal to noise of a task: standard deviation between mechanisms over that between seeds, as "
     "components of variance (after arXiv 2508.13144). Share: of the index's variance over "
     "mechanisms. Kendall's tau: of the ranking with that without the task. The smallest "
     "difference: what the t test between two entries finds with 80 % power."),
    ("Missing results",
     "An entry that lacks a task or a metric, or of which a seed came to nothing, has no index and "
     "no rank. It stands below the others with the number of tasks that it has. One with the first "
     "of softmax's seeds alone counts with as many on every task."),
    ("Tasks that do not count",
     "A task on which softmax does not beat no attention by four seed standard deviations is left "
     "out, and listed."),
    ("Labels",
     "Who measured: self-reported, the owner of the results folder; reference, the project, whose "
     "numbers come with the package; mixed, both. A label follows from where a row lies, not from "
     "what it says. Where both have a cell the owner's own rows count. An entry's rows are of one "
     "version of its code, and costs of one machine."),
    ("Fronts",
     "Dominated: the probability, over draws of both intervals, that another entry is at least as "
     "good and at most as dear. Hollow points are dominated in most draws."),
    ("Correlations",
     "Spearman's, with n; none below five entries. The controls none and softmax-exact are left "
     "out: none would make any two columns agree."),
)  # fmt: skip
