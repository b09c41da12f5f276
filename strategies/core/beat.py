"""Waits for the time of a round, where rounds have one."""

import time
from logging import INFO

from flwr.common import log

from fed_ist.traffic.beat import until_beat_s

PIECE_S = 60.0  # the clock may be set meanwhile


def await_beat(every_s: float, server_round: int) -> None:
    """Wait for the next beat; a round that is over after it begins with the one that follows.

    every_s: `round-every-s`; 0 for rounds that follow each other at once.
    """
    if not every_s:
        return
    left_s = until_beat_s(time.time(), every_s)
    end_s = time.time() + left_s
    log(INFO, "Round %d begins with the next beat, in %.0f s", server_round, left_s)
    while (left_s := end_s - time.time()) > 0:
        time.sleep(min(left_s, PIECE_S))
