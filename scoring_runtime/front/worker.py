"""Our gunicorn worker class: gunicorn supervises it, the loop and everything on it are ours."""

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from typing import Any

import uvloop
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from ..errors import ScorerStartError
from ..pool import arena
from ..telemetry import sink
from .app import FrontApplication
from .server import Server

logger = logging.getLogger("scoring_runtime.front")

HEARTBEAT_S = 1.0


class FrontWorker(Worker):  # type: ignore[misc]
    """One front: an event loop, a listener, a pool of scorers."""

    app: FrontApplication

    def init_process(self) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        super().init_process()

    def load_wsgi(self) -> None:
        """Nothing to load: the front brings its own control plane, and user code never enters this process."""

    def init_signals(self) -> None:
        # gunicorn's arbiter left its own handlers, SIGCHLD's among them, which would swallow the scorers' exit codes.
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self.stopping: asyncio.Future[bool] = self.loop.create_future()
        self.loop.add_signal_handler(signal.SIGTERM, self._end, True)
        # Ctrl-C reaches this process twice: from the terminal, and from the arbiter as SIGQUIT, in either order.
        self.loop.add_signal_handler(signal.SIGINT, self._end, False)
        self.loop.add_signal_handler(signal.SIGQUIT, self._end, False)
        self.loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)

    def run(self) -> None:
        exit_code = self.loop.run_until_complete(self._serve())
        self.loop.close()
        sink.drain(sink.LAST_WORDS_S)
        sys.exit(exit_code)

    async def _serve(self) -> int:
        exit_code = 0

        def boot_failed(error: ScorerStartError) -> None:
            nonlocal exit_code
            exit_code = Arbiter.WORKER_BOOT_ERROR
            self.app.boot_report.write(error.report())
            self._end(False)

        server = Server(
            self.app.settings,
            dataclasses.replace(self.app.plan, arena=arena.create()),
            self.loop,
            first_boot=self.age == 1,
            on_boot_failed=boot_failed,
            own_documents=self.app.own_documents,
            key_file=self.app.key_file,
            certificates=self.app.certificates,
        )
        await server.start([listener.sock for listener in self.sockets])
        heartbeat = self.loop.create_task(self._beat())
        drain = await self.stopping
        if drain:
            await server.drain(self.app.settings.drain_grace_s if self.got_sigterm else 0.0)
        else:
            await server.stop()
        heartbeat.cancel()
        return exit_code

    async def _beat(self) -> None:
        """Tell the arbiter that the loop turns; end when the arbiter has gone."""
        while True:
            self.notify()
            if os.getppid() != self.ppid:
                logger.error("The master process has gone: this one ends, too.")
                self._end(True)
            await asyncio.sleep(HEARTBEAT_S)

    got_sigterm = False

    def _end(self, drain: bool) -> None:
        self.alive = False
        if not self.stopping.done():
            self.got_sigterm = drain
            self.stopping.set_result(drain)

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called once by the arbiter: the front owns all scorers, so there is one."""
        if cfg.workers != 1:
            raise RuntimeError(f"one front serves all scorers, not {cfg.workers}")
