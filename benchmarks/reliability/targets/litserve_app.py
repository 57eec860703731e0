"""The same script in LitServe, set to start workers again: by default the death of one ends the server."""

import sys
from typing import Any

import litserve
import score


class Scored(litserve.LitAPI):  # type: ignore[misc]
    """JSON in, JSON out."""

    def setup(self, device: Any) -> None:
        score.init()

    def predict(self, x: Any) -> Any:
        return score.run(x)


if __name__ == "__main__":
    server = litserve.LitServer(
        Scored(api_path="/score"), accelerator="cpu", workers_per_device=2, timeout=30, restart_workers=True
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
