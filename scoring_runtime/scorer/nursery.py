"""The preload process: it loaded the script, init() ran in it once, and each scorer is a fork of it.

The front asks over a control socket, one packet for a question and one for its answer (`frames.PACKET`). With FORK come
four descriptors: the scorer's channel, its progress file, its stdout and its stderr. REAP asks how a scorer ended that
has ended; until then its pid stays taken, so that the front never kills a process that it does not mean.
"""

import _socket  # as in loop.py
import gc
import os
from array import array
from os import WEXITSTATUS, WIFSIGNALED, WTERMSIG, close, dup2, getpid, set_inheritable, setsid, waitpid
from signal import SIG_DFL, SIGCHLD
from signal import signal as set_handler
from typing import List, Optional, Tuple

from . import frames, process
from .progress import Progress

_DESCRIPTORS = 4
_CLOSE_ON_EXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)


def raise_scorers(control: _socket.socket, channel: _socket.socket) -> Optional[Progress]:
    """Fork a scorer whenever the front asks for one.

    Returns in each fork, with its progress file; its own channel has taken the place of `channel`. Returns in the preload
    process only when the front has closed the control socket, and then None.
    """
    gc.collect()
    if hasattr(gc, "freeze"):  # collections in the forks then leave the pages alone that they share
        gc.freeze()
    # A handler of the user's might wait for children, and ours with them.
    on_child = set_handler(SIGCHLD, SIG_DFL)
    me = getpid()
    while True:
        packet, descriptors = _receive(control)
        if not packet:
            return None
        kind, pid, _ = frames.PACKET.unpack(packet)
        if kind == frames.REAP:
            answer = (kind, pid, _reap(pid))
        else:
            process.flush_prints()
            try:
                pid = os.fork()  # as user code has it: libraries that must know of forks may have put theirs there
            except OSError as error:  # no memory, or no process left: the front tries again later
                answer = (kind, 0, error.errno or 0)
            else:
                if pid == 0:
                    control.close()
                    if on_child is not None:
                        set_handler(SIGCHLD, on_child)
                    return _wake_up(me, channel, descriptors)
                answer = (kind, pid, 0)
        for descriptor in descriptors:
            close(descriptor)
        try:
            control.send(frames.PACKET.pack(*answer))
        except OSError:
            return None


def _receive(control: _socket.socket) -> Tuple[bytes, List[int]]:
    """The next packet and the descriptors that came with it; no bytes when the front has gone."""
    descriptors = array("i")
    space = _socket.CMSG_LEN(_DESCRIPTORS * descriptors.itemsize)
    try:
        packet, ancillary, _, _ = control.recvmsg(frames.PACKET.size, space, _CLOSE_ON_EXEC)
    except ConnectionError:
        return b"", []
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        set_inheritable(descriptor, False)  # where the flag is not known
    return packet, list(descriptors)


def _reap(pid: int) -> int:
    try:
        status = waitpid(pid, 0)[1]
    except ChildProcessError:  # user code has waited for it
        return frames.UNKNOWN_EXIT
    return -WTERMSIG(status) if WIFSIGNALED(status) else WEXITSTATUS(status)


def _wake_up(parent: int, channel: _socket.socket, descriptors: List[int]) -> Progress:
    setsid()
    process.die_with_parent(parent)
    own_channel, progress_file, stdout, stderr = descriptors
    # A new socket object would have the default timeout that user code may have set.
    dup2(own_channel, channel.fileno(), inheritable=False)
    dup2(stdout, 1)
    dup2(stderr, 2)
    progress = Progress(progress_file)
    for descriptor in descriptors:
        close(descriptor)
    return progress
