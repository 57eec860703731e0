"""Served with a limit of 200 ms for run()."""

import hashlib
import time


def init():
    pass


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def run(data):
    if data == "sleep":
        time.sleep(20)
    elif data == "busy":
        busy(20)
    elif data == "swallow":
        try:
            time.sleep(20)
        except Exception as error:
            return [type(error).__name__ == "TimeoutError" or isinstance(error, TimeoutError), "swallowed"]
    elif data == "finally":
        try:
            time.sleep(20)
        finally:
            busy(0.05)
    elif data == "c-code":
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1200000)
    elif data == "own":
        raise TimeoutError("not yours")
    elif data == "quick":
        time.sleep(0.02)
    return "done"
