"""Half a minute of chaos, as `make chaos` runs it for longer."""

import asyncio
import json
import secrets

from . import report, run


def test_half_a_minute_of_chaos():
    seed = secrets.randbelow(1 << 32)  # each run of the suite tries another order; a failure prints it

    result = asyncio.run(run.run(seed, 25.0, print))

    text = report.text(json.loads(json.dumps(result)))
    assert not result["violations"], text
    assert text.splitlines()[-1].startswith(f"seed {seed}, ")
    assert result["requests"] > 500
    assert {stroke["server"] for stroke in result["faults"]} == set(run.SERVERS)
