"""The two ways in which a run ends for a reason that its user can mend, and how a command tells of them."""

import sys


class InputError(ValueError):
    """What was asked for cannot be done as given: a wrong name, shape or value, a missing or damaged file.

    The message is one sentence that says what was wrong and what to do. Commands print it alone and exit with
    status 2 before they have spent any time.
    """


class TrainingStopped(RuntimeError):
    """Training ended early because going on was pointless: a loss that is not finite, a collapsed codebook.

    The message is one sentence. Commands print it alone and exit with status 1; what was saved before stays.
    """


def run_command(function, *arguments):
    """Runs a command's work; an error that its user can mend becomes one sentence.

    Args:
        function: the work.
        *arguments: its arguments.

    Returns:
        The exit status: 0, 1 after `TrainingStopped`, 2 after `InputError`, 130 after an interruption by keyboard.
    """
    try:
        function(*arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TrainingStopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0
