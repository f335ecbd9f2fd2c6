"""Requests that are sent again."""

import time
from collections.abc import Callable

from vq_keras.translation_client.failures import Unavailable

# Seconds before the second attempt, at most; twice as many before each that follows, up to the longest.
_FIRST, _LONGEST = 0.5, 15.0
# Seconds that an attempt has in any case.
_SHORTEST = 0.001


def call(send: Callable, deadline: float, attempts: int):
    """What `send` returns, of the first attempt that is not `Unavailable`.

    To translate twice does no harm, so everything that may pass is tried again: a server that is not there yet or
    refuses for want of room, and what a server or a proxy before it calls a deadline of theirs. Our deadline is that
    of all attempts: after it there is nothing to try again. Waits are random, so that clients which failed together
    do not come back together.

    Args:
        send: of the seconds that are left.
        deadline: seconds that all attempts may take.
        attempts: how many, the first among them.

    Raises:
        Unavailable: that of the last attempt, and whatever else `send` raises at once.
    """
    import tenacity

    end = time.monotonic() + deadline
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=tenacity.wait_random_exponential(_FIRST, _LONGEST),
        stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_before_delay(deadline),
        reraise=True,
    )
    # A wait may end at the deadline, and no protocol takes none or less.
    return retrying(lambda: send(max(end - time.monotonic(), _SHORTEST)))
