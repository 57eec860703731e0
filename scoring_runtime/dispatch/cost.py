"""What a frame costs, learned from the times that scorers report.

Frames are filed in buckets by how many requests they hold (1, 2, 3-4, 5-8, ...) and by how large they are (up to 64 KiB,
1 MiB, 16 MiB, ...), so that one body of 50 MB says nothing about a hundred small ones. A bucket keeps its last `WINDOW`
times. For one frame a high quantile counts: a mean would promise what half of the frames cannot keep. For many frames
one after another the mean counts as well, see `forecast.py`.

What was not seen is taken to cost twice the half of it, which is right for engines that run requests one after the
other and pessimistic for engines that stack. What was not seen for long is forgotten: else a size that was slow once
would never be tried again, and so never be found to be quick.
"""

from typing import NamedTuple

WINDOW = 64
QUANTILE = 0.9

FORGET_AFTER_S = 2.0
FORGET_AFTER_TIMES = 20
"""A bucket is forgotten when frames of others have kept scorers busy for so long, and so many times as long as one of its
own would: to try a size that is still slow costs a twentieth of the time at most."""

TRIED_UP_TO = 4
"""With an engine that stacks, a size that was not seen is tried if it costs at most so many times the target."""
WORTH_UP_TO = 1.25
"""With an engine that stacks, twice the requests for at most so many times the time are taken, whatever the target."""

_SWEEP_EVERY = 16  # frames


class Cost(NamedTuple):
    """What a frame takes, in seconds: on average, and at most in nine of ten cases."""

    mean_s: float
    quantile_s: float


class _Bucket:
    """The last times of frames of one size."""

    __slots__ = ("_next", "_times_s", "cost", "seen_at_s")

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._next = 0
        self.cost = Cost(0.0, 0.0)
        self.seen_at_s = 0.0  # on the clock of `CostModel`

    def add(self, time_s: float) -> bool:
        """Whether `cost` has changed."""
        times_s = self._times_s
        if len(times_s) < WINDOW:
            times_s.append(time_s)
        else:
            times_s[self._next] = time_s
        self._next = (self._next + 1) % WINDOW
        # Sorting at each frame would cost as much as serving a request: once a full window is there, every eighth will do.
        if len(times_s) == WINDOW and self._next % 8:
            return False
        ordered = sorted(times_s)
        # Rounded down: of a few times the slowest one alone, a first run or a hiccup, does not speak for the others.
        self.cost = Cost(sum(ordered) / len(ordered), ordered[int(QUANTILE * (len(ordered) - 1))])
        return True


class CostModel:
    """Learns from `observe`, answers `predict` and `largest`.

    `version` changes whenever an answer may have. `stacks`: whether the engine runs the requests of a frame together.
    """

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, int], _Bucket] = {}
        self._largest: dict[tuple[float, int, int], int] = {}  # answers of this version
        self._busy_s = 0.0  # the clock by which times grow old: it stands still while there is nothing to do
        self._observed = 0
        self.version = 0
        self.stacks = False

    def observe(self, count: int, size_bytes: int, busy_s: float) -> None:
        """A frame of `count` requests, of `size_bytes` in all, kept a scorer busy for `busy_s`."""
        key = _key(count, size_bytes)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket()
        self._busy_s += busy_s
        bucket.seen_at_s = self._busy_s
        changed = bucket.add(busy_s)
        self._observed += 1
        if self._observed % _SWEEP_EVERY == 0:
            changed |= self._forget()
        if changed:
            self._largest.clear()
            self.version += 1

    def predict(self, count: int, size_bytes: int) -> Cost | None:
        """What a frame of `count` requests, of `size_bytes` in all, will cost; None before anything was observed."""
        buckets = self._buckets
        wanted = key = _key(count, size_bytes)
        bucket = buckets.get(key)
        if bucket is not None:
            return bucket.cost
        guesses = [bucket.cost for key, bucket in buckets.items() if _covers(key, wanted)]  # less costs no more
        scale = 1.0
        while key != (0, 0):
            count, size_bytes, scale = (count + 1) // 2, size_bytes // 2, scale * 2.0
            key = _key(count, size_bytes)
            bucket = buckets.get(key)
            if bucket is not None:
                guesses.append(Cost(bucket.cost.mean_s * scale, bucket.cost.quantile_s * scale))
                break
        return min(guesses) if guesses else max((bucket.cost for bucket in buckets.values()), default=None)

    def largest(self, target_s: float, cap: int, each_bytes: int = 0) -> int:
        """The largest frame, up to `cap`, of requests of `each_bytes` that is predicted to cost at most `target_s`.

        At least 1, and at most twice as large as frames that were seen: a prediction for more than that is a guess, and
        the first replies of all may have been cheap because they were refusals. An engine that stacks may get more than
        the target allows where company costs next to nothing, and a size is tried to find that out.
        """
        size_class = each_bytes.bit_length()
        known = self._largest.get((target_s, cap, size_class))
        if known is not None:
            return known
        each_bytes = (1 << size_class) - 1
        count = 1
        while count < cap:
            larger = min(count * 2, cap)
            if not self._fits(count, larger, each_bytes, target_s):
                break
            count = larger
        self._largest[target_s, cap, size_class] = count
        return count

    def _fits(self, count: int, larger: int, each_bytes: int, target_s: float) -> bool:
        """Whether frames may grow from `count` to `larger`."""
        cost = self.predict(larger, larger * each_bytes)
        if cost is None or not self._has_seen(count, count * each_bytes):
            return False
        if cost.quantile_s <= target_s or not self.stacks:
            return cost.quantile_s <= target_s
        if not self._has_seen(larger, larger * each_bytes):
            return cost.quantile_s <= TRIED_UP_TO * target_s
        smaller = self.predict(count, count * each_bytes)
        return smaller is not None and cost.quantile_s <= WORTH_UP_TO * smaller.quantile_s

    def _has_seen(self, count: int, size_bytes: int) -> bool:
        """Whether there were frames at least as large."""
        wanted = _key(count, size_bytes)
        return any(_covers(key, wanted) for key in self._buckets)

    @property
    def dearest_s(self) -> float:
        """The quantile of the slowest frames that are known; 0 before anything was observed."""
        return max((bucket.cost.quantile_s for bucket in self._buckets.values()), default=0.0)

    def _forget(self) -> bool:
        """Drop what was not seen for long; whether anything was."""
        old = [
            key
            for key, bucket in self._buckets.items()
            if self._busy_s - bucket.seen_at_s > max(FORGET_AFTER_S, FORGET_AFTER_TIMES * bucket.cost.quantile_s)
        ]
        for key in old:
            del self._buckets[key]
        return bool(old)


def _key(count: int, size_bytes: int) -> tuple[int, int]:
    """The bucket of a frame: its count rounded up to a power of two, its bytes to 64 KiB, 1 MiB, 16 MiB, ..."""
    return (count - 1).bit_length(), max(0, (size_bytes.bit_length() - 13) // 4)


def _covers(key: tuple[int, int], smaller: tuple[int, int]) -> bool:
    """Whether frames of one bucket are at least as large, in both senses, as those of another."""
    return key[0] >= smaller[0] and key[1] >= smaller[1]
