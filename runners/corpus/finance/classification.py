"""How good a yes-or-no model is, and what its mistakes cost.

Sources: Manning, Raghavan & Schütze, "Introduction to Information Retrieval", ch. 8; Elkan (2001) for the cost threshold; Basel Committee for expected loss.
"""

from __future__ import annotations


def precision_and_recall(true_positives: float, false_positives: float, false_negatives: float) -> tuple[float, float]:
    """(share of flags that are right, share of the real ones that are flagged)."""
    return true_positives / (true_positives + false_positives), true_positives / (true_positives + false_negatives)


def f1(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall."""
    return 2 * precision * recall / (precision + recall)


def flagged_truly(base_rate: float, sensitivity: float, false_positive_rate: float) -> float:
    """Bayes: probability that a flagged case is a real one."""
    right = base_rate * sensitivity
    return right / (right + (1 - base_rate) * false_positive_rate)


def review_threshold(review_cost: float, loss: float) -> float:
    """Probability above which reviewing a case, which prevents its ``loss``, costs less than not reviewing."""
    return review_cost / loss


def expected_credit_loss(default_probability: float, loss_given_default: float, exposure: float) -> float:
    """PD x LGD x EAD."""
    return default_probability * loss_given_default * exposure
