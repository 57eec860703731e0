"""The entry script of the incumbent for a model of ONNX."""

import json

from benchmarks.peers.session import Document, Session

session: Session


def init() -> None:
    global session
    session = Session()


def run(raw_data: str) -> Document:
    return session.encode(session.run(session.decode(json.loads(raw_data))))
