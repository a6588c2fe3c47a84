"""A model that takes its time while a file is there: a run that cannot end before a test has told it something."""

import os
import time

from mpiconsensus.models.logistic import Logistic


class Slow(Logistic):
    """Logistic regression; a gradient takes at least 0.2 s while the file that HOLD names exists."""

    def forward(self, x):
        if self.training and os.path.exists(os.environ["HOLD"]):
            time.sleep(0.2)
        return super().forward(x)


def slow(shape, classes):
    """Return the model."""
    return Slow(shape, classes)
