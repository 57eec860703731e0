"""How long a place stays empty before its next scorer is started. Pure: lives come in, waits go out.

A life that failed to start, or ended although nobody had asked it anything, says that the next one will, too: such lives
wait longer and longer. A life that a request ended, or that had answered some, says nothing of the kind, and whoever sends
such requests must not be able to keep the others waiting: the next one starts at once, or after a second at most.
"""

STABLE_AFTER_S = 10.0
"""A scorer that lived this long has shown that it can: its next restart is at once."""
FIRST_BACK_OFF_S = 0.25
LONGEST_BACK_OFF_S = 30.0
FIRST_CRASH_WAIT_S = 0.1
LONGEST_CRASH_WAIT_S = 1.0


def back_off_s(failures: int) -> float:
    """The wait before a restart, after `failures` lives in a row that were too short."""
    return _doubled(failures, FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S)


def crash_wait_s(crashes: int) -> float:
    """The wait before a restart, after `crashes` lives in a row that answered nothing and ended under a request."""
    return _doubled(crashes, FIRST_CRASH_WAIT_S, LONGEST_CRASH_WAIT_S)


def _doubled(lives: int, first_s: float, longest_s: float) -> float:
    return 0.0 if lives <= 1 else min(longest_s, first_s * 2.0 ** min(lives - 2, 32))


class BackOff:
    """The lives of one place."""

    def __init__(self) -> None:
        self._failures = 0
        self._crashes = 0

    @property
    def in_a_row(self) -> int:
        """Lives in a row that ended too soon."""
        return self._failures + self._crashes

    def ended(self, lived_s: float, answered: bool) -> float:
        """The wait after a life that ended with nothing to do. lived_s: since it was ready; 0 if it never was.

        answered: it had answered requests: then the next one will, too, whoever killed it.
        """
        if answered:
            return self.crashed(answered)
        self._crashes = 0
        self._failures = 1 if lived_s >= STABLE_AFTER_S else self._failures + 1
        return back_off_s(self._failures)

    def not_launched(self) -> float:
        """The wait after a start that did not make a process: never none."""
        self._failures += 1
        return back_off_s(self._failures + 1)

    def crashed(self, answered: bool) -> float:
        """The wait after a life that ended under a request. answered: it had answered others before."""
        self._failures = 0
        self._crashes = 1 if answered else self._crashes + 1
        return crash_wait_s(self._crashes)
