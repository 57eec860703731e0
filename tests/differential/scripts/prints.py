import logging
import sys

print("at import")
logging.getLogger("mine").warning("warning at import")


def init():
    print("in", "init", 1, sep="-")


def run(data):
    print("got", data)
    print("to stderr", file=sys.stderr)
    if data == "raise":
        raise ValueError("x")
    if data == "log":
        logging.getLogger("azmlinfsrv").info("by their logger")
        logging.getLogger("azmlinfsrv.own").warning("by a child of their logger")
    if data == "lines":
        print("one\ntwo")
    if data == "write":
        sys.stdout.write("written\n")
        sys.stdout.flush()
    return data
