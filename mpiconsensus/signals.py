"""Signals that ask a run to end: noted when they come, looked at between two steps."""

import signal

# Slurm and people send these; what they do by default would end the process at once.
USER = (signal.SIGUSR1, signal.SIGUSR2)
END = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """number: the first signal that came of those that are caught, 0 before. A second one changes nothing."""

    def __init__(self):
        self.number = 0

    def catch(self, numbers):
        """Note the signals `numbers` from here on, in place of what they did."""
        for number in numbers:
            signal.signal(number, self._note)

    def _note(self, number, frame):
        self.number = self.number or int(number)


def name(number):
    """Return SIGTERM for 15, and so on."""
    return signal.Signals(number).name
