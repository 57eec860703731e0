"""What people write by hand: FastAPI under uvicorn.

uvloop and httptools come with uvicorn[standard] (https://www.uvicorn.org/#quickstart). One worker for one core
(https://fastapi.tiangolo.com/deployment/server-workers/). The body is read as it is and a Response is returned as it is,
which spares pydantic on both ways (https://fastapi.tiangolo.com/advanced/response-directly/). The endpoint is a coroutine:
a hop to a thread would cost more than this model does. FastAPI has no batching.
"""

import argparse

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.peers.session import Session

session = Session()
app = FastAPI()


@app.post("/score")
async def score(request: Request) -> Response:
    outputs = session.run(session.decode(orjson.loads(await request.body())))
    return Response(orjson.dumps(session.encode(outputs)), media_type="application/json")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.parse_args().port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        backlog=2048,
    )
