"""What a frame of n requests costs, learned from the times that scorers report.

Frames are filed by size into buckets of powers of two: 1, 2, 3-4, 5-8, ... Each bucket keeps its last `WINDOW` times and
answers with a high quantile, not a mean: a mean would promise what half of the frames cannot keep. A bucket that has seen
nothing is taken to cost twice the one below it, which is right for engines that run requests one after the other and
pessimistic for engines that stack; the first frames let in by that bound correct it.
"""

WINDOW = 64
QUANTILE = 0.9


class _Bucket:
    """The last times of one frame size, and their quantile."""

    __slots__ = ("_next", "_times_s", "quantile_s")

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._next = 0
        self.quantile_s = 0.0

    def add(self, time_s: float) -> None:
        times_s = self._times_s
        if len(times_s) < WINDOW:
            times_s.append(time_s)
        else:
            times_s[self._next] = time_s
        self._next = (self._next + 1) % WINDOW
        # Sorting at each frame would cost as much as serving a request: once a full window is there, every eighth will do.
        if len(times_s) < WINDOW or self._next % 8 == 0:
            ordered = sorted(times_s)
            self.quantile_s = ordered[min(len(ordered) - 1, int(QUANTILE * len(ordered)))]


class CostModel:
    """Learns from `observe`, answers `predict_s` and `largest`."""

    def __init__(self) -> None:
        self._buckets: list[_Bucket | None] = []
        self._largest: dict[tuple[float, int], int] = {}  # answers that hold until a quantile changes

    def observe(self, count: int, busy_s: float) -> None:
        """A frame of `count` requests kept a scorer busy for `busy_s`."""
        index = (count - 1).bit_length()
        while len(self._buckets) <= index:
            self._buckets.append(None)
        bucket = self._buckets[index]
        before = None if bucket is None else bucket.quantile_s
        if bucket is None:
            bucket = self._buckets[index] = _Bucket()
        bucket.add(busy_s)
        if bucket.quantile_s != before:
            self._largest.clear()

    def predict_s(self, count: int) -> float | None:
        """What a frame of `count` requests will cost; None before anything was observed."""
        index = (count - 1).bit_length()
        known = min(index, len(self._buckets) - 1)
        for at in range(known, -1, -1):
            bucket = self._buckets[at]
            if bucket is not None:
                return bucket.quantile_s * float(1 << (index - at))
        for at in range(index + 1, len(self._buckets)):
            bucket = self._buckets[at]
            if bucket is not None:
                return bucket.quantile_s
        return None

    def largest(self, target_s: float, cap: int) -> int:
        """The largest frame, up to `cap`, that is predicted to cost at most `target_s`; at least 1.

        Before anything was observed: 1, so that the first frame of a slow engine holds nobody up.
        """
        known = self._largest.get((target_s, cap))
        if known is not None:
            return known
        count = 1
        while count < cap:
            larger = min(count * 2, cap)
            cost_s = self.predict_s(larger)
            if cost_s is None or cost_s > target_s:
                break
            count = larger
        self._largest[target_s, cap] = count
        return count

    def wait_s(self, waiting: int, frame_count: int, scorers: int) -> float:
        """How long `waiting` requests will keep `scorers` scorers busy in frames of `frame_count`; 0 when unknown."""
        cost_s = self.predict_s(frame_count)
        if cost_s is None or waiting <= 0:
            return 0.0
        return cost_s * (waiting / frame_count) / max(1, scorers)
