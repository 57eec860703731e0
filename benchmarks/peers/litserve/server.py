"""LitServe with batching, as https://lightning.ai/docs/litserve/features/batching and .../speed-up-serving-by-200x advise.

A batch of up to 64 requests is waited for 1 ms at most; longer waits only cost where one core is busy all the time. One
worker and one API server for one core. fast_queue replaces the queue of a manager process by ZeroMQ.
"""

import argparse

import litserve as ls

from benchmarks.peers.session import Arrays, Document, Session


class Api(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.session = Session()

    def decode_request(self, request: Document) -> Arrays:
        return self.session.decode(request)

    def batch(self, inputs: list[Arrays]) -> list[Arrays]:
        return inputs  # run_many stacks what has one shape

    def predict(self, x: list[Arrays]) -> list[Arrays]:
        return self.session.run_many(x)

    def unbatch(self, output: list[Arrays]) -> list[Arrays]:
        return output

    def encode_response(self, output: Arrays) -> Document:
        return self.session.encode(output)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    server = ls.LitServer(
        Api(max_batch_size=64, batch_timeout=0.001, api_path="/score"),
        accelerator="cpu",
        workers_per_device=1,
        timeout=False,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=arguments.parse_args().port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
