"""The one exception a user's mistake becomes, and the nearest-match hint it carries."""

import difflib


class UserError(Exception):
    """A wrong input: one line that says what was given, what is allowed and what to do. Exit code 2."""


class TrainingError(Exception):
    """A run that cannot go on (a loss that is not finite, a full disk): one line, exit code 3."""


class Stopped(Exception):
    """A run that a signal ended, behind a checkpoint to go on from: one line, exit code 75."""


def did_you_mean(word, choices):
    """Return " Did you mean 'x'?" for the nearest of `choices`, or "" where none is near."""
    near = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def require_choice(what, value, choices):
    """Raise UserError unless `value` is one of `choices`; `what` names the thing, e.g. 'algorithm.order'."""
    choices = list(choices)
    if value not in choices:
        raise UserError(
            f"{what} = {value!r} is not known; choose one of {', '.join(map(str, choices))}."
            + did_you_mean(value, choices)
        )
    return value
