"""The preload process: it loaded the script, init() ran in it once, and each scorer is a fork of it.

The front asks over a control socket, one packet for a question and one for its answer (`frames.PACKET`). With FORK come
four descriptors: the scorer's channel, its progress file, its stdout and its stderr. REAP asks how a scorer ended that
has ended; until then its pid stays taken, so that the front never kills a process that it does not mean.
"""

import array
import gc
import os
import signal
import socket
from typing import List, NamedTuple, Optional, Tuple

from . import frames, process
from .progress import Progress

_DESCRIPTORS = 4


class Born(NamedTuple):
    """What a scorer finds when it wakes up in its fork."""

    channel: socket.socket
    progress: Progress


def raise_scorers(control: socket.socket, own_channel: socket.socket) -> Optional[Born]:
    """Fork a scorer whenever the front asks for one.

    Returns in each fork; in the preload process only when the front has closed the control socket, and then None.
    """
    gc.collect()
    if hasattr(gc, "freeze"):  # collections in the forks then leave the pages alone that they share
        gc.freeze()
    # A handler of the user's might wait for children, and ours with them.
    on_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    me = os.getpid()
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
                pid = os.fork()
            except OSError as error:  # no memory, or no process left: the front tries again later
                answer = (kind, 0, error.errno or 0)
            else:
                if pid == 0:
                    control.close()
                    own_channel.close()
                    if on_child is not None:
                        signal.signal(signal.SIGCHLD, on_child)
                    return _wake_up(me, descriptors)
                answer = (kind, pid, 0)
        for descriptor in descriptors:
            os.close(descriptor)
        try:
            control.send(frames.PACKET.pack(*answer))
        except OSError:
            return None


def _receive(control: socket.socket) -> Tuple[bytes, List[int]]:
    """The next packet and the descriptors that came with it; no bytes when the front has gone."""
    descriptors = array.array("i")
    space = socket.CMSG_LEN(_DESCRIPTORS * descriptors.itemsize)
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    try:
        packet, ancillary, _, _ = control.recvmsg(frames.PACKET.size, space, flags)
    except ConnectionError:
        return b"", []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # where the flag is not known
    return packet, list(descriptors)


def _reap(pid: int) -> int:
    try:
        status = os.waitpid(pid, 0)[1]
    except ChildProcessError:  # user code has waited for it
        return frames.UNKNOWN_EXIT
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _wake_up(parent: int, descriptors: List[int]) -> Born:
    os.setsid()
    process.die_with_parent(parent)
    channel, progress_file, stdout, stderr = descriptors
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for descriptor in (stdout, stderr):
        os.close(descriptor)
    progress = Progress(progress_file)
    os.close(progress_file)
    return Born(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=channel), progress)
