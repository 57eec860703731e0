import os
import signal


def init():
    pass


def run(data):
    if data == "exit":
        os._exit(7)
    if data == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"
