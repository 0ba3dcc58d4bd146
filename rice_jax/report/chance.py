"""How far an accuracy may be off by the chance of which images it was measured on."""

import math


def standard_error(accuracy: float, images: int) -> float:
    """The binomial standard error sqrt(p (1 - p) / n) of a share of n images.

    With one right and one wrong answer added, so that all right is not taken for certain.
    """
    share = (accuracy * images + 1) / (images + 2)
    return math.sqrt(share * (1 - share) / images)
