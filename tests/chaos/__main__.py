"""Chaos: real servers under clients of every kind, while a seeded schedule of faults strikes. No answer may be lost without a
reason, swapped, doubled or wrong, no request may run twice, and nothing may grow.

    make chaos CHAOS_ARGS="--minutes 60 --seed 7 --json chaos.json"
"""

import argparse
import asyncio
import json
import secrets
import sys
from pathlib import Path

from . import report, run


def main() -> int:
    parser = argparse.ArgumentParser("make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=None, help="what strikes and when (default: another each time)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    parser.add_argument("--quiet", action="store_true", help="only the report")
    arguments = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    tell = (lambda _: None) if arguments.quiet else (lambda line: print(line, flush=True))
    result = asyncio.run(run.run(seed, arguments.minutes * 60, tell))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(report.text(result))
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
