"""The loop of a scorer that decodes while it runs, and that can be told to stop a run.

This thread reads the channel, decodes, encodes and writes. A second one does nothing but run the model, which lets go of the
interpreter's lock meanwhile. So the front may send one frame ahead: it is decoded while the one before runs, and its run
begins when that one ends.

To hand a run over and to hear of its end takes 60 us. Where runs are short, and where none has to be stopped, that would be
for nothing: there everything happens in this thread, as in `scorer/loop.py`.
"""

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from scoring_runtime.scorer import frames
from scoring_runtime.scorer.arena import Arena
from scoring_runtime.scorer.loop import OUTLIVED, Channel, ChannelClosedError, Outbox
from scoring_runtime.scorer.progress import Progress

from .dtypes import Array
from .engine import Engine, Part, Ran
from .session import RunStoppedError

WORTH_OVERLAP_US = 500
"""Where the runs of a frame take less, decoding beside them is not worth the hand-over."""
WORTH_STOPPING_US = 20_000
LONG_RUNS_HOLD = 16
"""So many frames after one that was worth stopping the next may be too. Until it is known, any may be."""

STOP_AGAIN_MS = 20
"""A stop that came between two runs was lost: it is repeated."""

SWITCH_S = 0.0002
"""How long decoding may hold the interpreter's lock while the end of a run waits for it."""

RUNS_AHEAD = 2
"""One that runs and one that waits for its end. More would only hold memory."""


class _Frame:
    """The requests of one frame, and how far they have come."""

    def __init__(self, requests: Sequence[frames.Request], outbox: Outbox, parts: Iterator[Part]) -> None:
        self.ids = frozenset([request.id for request in requests])
        self.outbox = outbox
        self.parts: Iterator[Part] | None = parts  # None when all have begun
        self.begun = 0  # parts that have, and have not ended
        self.ran: deque[_Run] = deque()  # their outputs wait to be encoded
        self.run_us = 0
        self.stopped = False  # nobody waits for it: nothing of it is run any more

    @property
    def is_over(self) -> bool:
        """Everything in it is answered."""
        return self.parts is None and not self.begun


class _Run:
    """One run of the model, for one part of a frame."""

    def __init__(self, frame: _Frame, part: Part, arrays: Sequence[Array]) -> None:
        self.frame = frame
        self.part = part
        self.arrays = arrays
        self.ran: Ran | None = None
        self.error: BaseException | None = None


class _Runner:
    """The thread that runs the model, one run after the other. `fileno` is readable when some have ended."""

    def __init__(self, run: Callable[[Sequence[Array]], Ran], stop: Callable[[], None]) -> None:
        self._run = run
        self._stop = stop
        self._given: SimpleQueue[_Run | None] = SimpleQueue()
        self._ended: deque[_Run] = deque()
        self._present: _Run | None = None
        self._switch = threading.Lock()  # held where `_present` changes, and by who stops it
        self._wakes, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._live, name="runs", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._wakes

    def give(self, run: _Run) -> None:
        """Run it after those that were given before."""
        self._given.put(run)

    def take_ended(self) -> list[_Run]:
        """Those that have ended since the last call, in order, each with what it gave or its error."""
        os.read(self._wakes, 65536)  # first: one that ends from now on wakes us again
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def stop(self, frame: _Frame) -> None:
        """Let the present run end early if it is one of this frame."""
        with self._switch:
            if self._present is not None and self._present.frame is frame:
                self._stop()

    def end(self) -> None:
        """End the thread, and what it runs if that can be."""
        self._given.put(None)
        while self._thread.is_alive():
            with self._switch:
                if self._present is not None:
                    self._stop()
            self._thread.join(STOP_AGAIN_MS / 1000)
        os.close(self._wakes)
        os.close(self._wake)

    def _live(self) -> None:
        while (run := self._given.get()) is not None:
            with self._switch:
                self._present = run
            try:
                if run.frame.stopped:
                    raise RunStoppedError("it was told to stop before it began")
                run.ran = self._run(run.arrays)
            except BaseException as error:  # noqa: BLE001 - the other thread raises it
                run.error = error
            with self._switch:
                self._present = None
            self._ended.append(run)
            os.write(self._wake, b"x")
            del run  # it holds arrays while this thread waits


class Pipeline:
    """The frames that are under way, first the one whose turn it is to be answered."""

    def __init__(self, channel: Channel, engine: Engine, find: Callable[[int, int], memoryview] | None) -> None:
        self._channel = channel
        self._engine = engine
        self._find = find
        self._open: deque[_Frame] = deque()
        self._again: deque[_Run] = deque()  # second runs of parts: before what has not begun
        self._given = 0  # runs that the runner has
        self._last_us = 0  # all runs of the last frame
        self._long_runs_held = LONG_RUNS_HOLD
        self._came_ahead = False  # the last frame was there before the one before was settled
        self._runner: _Runner | None = None
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def serve(self) -> None:
        """Answer frames until the front closes the channel."""
        try:
            while (message := self._channel.receive()) is not None:
                if message.kind in OUTLIVED:
                    continue
                if self._runs_here:
                    self._answer_here(message)
                    continue
                self._accept(message)
                while self._open:
                    for message in self._channel.take_waiting():
                        self._accept(message)
                    self._give_runs(RUNS_AHEAD)
                    if not self._settle():
                        self._wait()
        except ChannelClosedError:
            pass
        finally:
            for frame in self._open:
                frame.stopped = True
            if self._runner is not None:
                self._runner.end()

    @property
    def _runs_here(self) -> bool:
        """Whether the next frame had better be run by this thread."""
        return not self._long_runs_held and not (self._came_ahead and self._last_us >= WORTH_OVERLAP_US)

    def _answer_here(self, message: frames.Frame) -> None:
        """One frame from its bytes to its replies."""
        requests = frames.decode_requests(message, self._find)
        outbox = Outbox(self._channel, None)
        outbox.open(requests)
        run_us = self._engine.score(requests, outbox)
        outbox.flush()
        self._learn(run_us)
        self._came_ahead = run_us >= WORTH_OVERLAP_US and (self._channel.has_waiting or bool(self._poll.poll(0)))

    def _learn(self, run_us: int) -> None:
        self._last_us = run_us
        if run_us >= WORTH_STOPPING_US:
            self._long_runs_held = LONG_RUNS_HOLD
        elif self._long_runs_held:
            self._long_runs_held -= 1

    # In two threads

    def _accept(self, message: frames.Frame) -> None:
        """Heed what the front says, which may be a frame of requests."""
        if message.kind == frames.STOP:
            number = frames.decode_control(message)
            for frame in self._open:
                frame.stopped = frame.stopped or number in frame.ids
        elif message.kind not in OUTLIVED:
            requests = frames.decode_requests(message, self._find)
            outbox = Outbox(self._channel, None)
            outbox.open(requests, held=bool(self._open))
            self._open.append(_Frame(requests, outbox, self._engine.parts(requests, outbox)))

    def _give_runs(self, most: int) -> None:
        """See to it that the runner has `most` runs, if there are so many."""
        while self._given < most:
            run = self._next_run()
            if run is None:
                return
            if run.frame.stopped:
                run.error = RunStoppedError("it was told to stop before it began")
                self._go_on(run)
                continue
            if self._runner is None:
                sys.setswitchinterval(SWITCH_S)
                self._runner = _Runner(self._engine.run, self._engine.stop)
                self._poll.register(self._runner, select.POLLIN)
            self._given += 1
            self._runner.give(run)

    def _next_run(self) -> _Run | None:
        """What is to be run next. The frames are decoded here, each when all parts of those before it have begun."""
        if self._again:
            return self._again.popleft()
        for frame in self._open:
            while frame.parts is not None:
                part = next(frame.parts, None)
                if part is None:
                    frame.parts = None
                    break
                frame.begun += 1
                return _Run(frame, part, next(part))
        return None

    def _go_on(self, run: _Run) -> None:
        """A run has ended: its part answers its requests, or wants another one."""
        frame = run.frame
        try:
            if run.ran is None:
                assert run.error is not None
                arrays = run.part.throw(run.error)
            else:
                frame.run_us += run.ran.run_us
                arrays = run.part.send(run.ran)
        except StopIteration:
            frame.begun -= 1
        else:
            self._again.append(_Run(frame, run.part, arrays))

    def _settle(self) -> bool:
        """Answer what has run of the frame whose turn it is, then see whether the next one's has come."""
        first = self._open[0]
        if not first.ran and not first.is_over:
            return False
        while first.ran:
            self._go_on(first.ran.popleft())
        if first.is_over:
            first.outbox.flush()
            self._learn(first.run_us)
            self._open.popleft()
            self._came_ahead = bool(self._open)
            if self._open:
                self._open[0].outbox.release()
        return True

    def _wait(self) -> None:
        """Until a run has ended, or the front says something."""
        runner = self._runner
        assert runner is not None, "it waits for a run"
        stopped = [frame for frame in self._open if frame.stopped]
        for frame in stopped:
            runner.stop(frame)
        for descriptor, _ in self._poll.poll(STOP_AGAIN_MS if stopped else None):
            if descriptor == runner.fileno():
                for run in runner.take_ended():
                    self._given -= 1
                    run.frame.ran.append(run)
                self._give_runs(1)  # before the replies of those that ended: else the runner may have nothing to do
            elif not self._channel.read():
                raise ChannelClosedError


def serve(channel: Channel, engine: Engine, _progress: Progress | None, arena: Arena | None = None) -> None:
    """Answer frames until the front closes the channel. As `loop.serve`, which says what an engine is."""
    Pipeline(channel, engine, None if arena is None else arena.find).serve()
