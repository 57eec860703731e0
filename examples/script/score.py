"""A scoring script of the plainest kind: init() loads the model once, run() answers each request.

    scoring-runtime serve examples/script/score.py
    curl http://127.0.0.1:5001/score -H 'Content-Type: application/json' \
        -d '{"data": [{"rooms": 3, "area_m2": 74.5, "age_years": 20}]}'

It needs nothing but Python. The model is a linear one that prices a flat; a real script would load a file from the
folder that AZUREML_MODEL_DIR names.
"""

import json
import logging

logger = logging.getLogger(__name__)

weights: dict[str, float] = {}
base_price = 0.0


def init() -> None:
    """Load the model. Called once in each scorer process, before its first request."""
    global weights, base_price
    weights = {"rooms": 9_500.0, "area_m2": 3_100.0, "age_years": -850.0}
    base_price = 21_000.0
    logger.info("the model reads %s", ", ".join(weights))


def run(raw_data: str) -> dict[str, object]:
    """Price every flat in {"data": [{...}, ...]}. A flat that lacks a field is an error that names the field."""
    flats = json.loads(raw_data)["data"]
    return {"prices": [price(flat) for flat in flats]}


def price(flat: dict[str, float]) -> float:
    missing = sorted(weights.keys() - flat.keys())
    if missing:
        raise ValueError(f"a flat lacks: {', '.join(missing)}")
    return round(base_price + sum(weight * flat[name] for name, weight in weights.items()), 2)
