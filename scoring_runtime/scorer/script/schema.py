"""What the user's own inference-schema knows about run(), for the front's OpenAPI documents (contract §5).

inference-schema is never imported here: a script that uses it has done that.
"""

import json
import sys
from typing import Any, Callable, Dict

from . import encode, log

MAX_BYTES = 1 << 22
"""Of a description: it must fit into READY."""

_EMPTY = {"type": "object", "example": {}}  # type: Dict[str, Any]
_VERSIONS = ["2.0", "3.0", "3.1"]


def is_decorated(run: Callable[..., Any]) -> bool:
    """Whether run() bears @input_schema or @output_schema."""
    util = sys.modules.get("inference_schema.schema_util")
    if util is None and "inference_schema" in sys.modules:
        from importlib import import_module

        util = import_module("inference_schema.schema_util")
    return util is not None and bool(util.is_schema_decorated(run))


def describe(run: Callable[..., Any]) -> Dict[str, Any]:
    """The schemas of input and output, with examples, and the versions of OpenAPI that can say them; safe for JSON."""
    description = {"input": _EMPTY, "output": _EMPTY, "versions": _VERSIONS}
    if not is_decorated(run):
        return description
    util = sys.modules["inference_schema.schema_util"]
    try:
        description["input"] = util.get_input_schema(run)
        description["output"] = util.get_output_schema(run)
        if hasattr(util, "get_supported_versions"):  # absent in old ones
            description["versions"] = list(util.get_supported_versions(run))
        text = encode.encode(description)
        if len(text) > MAX_BYTES:
            raise ValueError("%d bytes of samples are over the limit of %d" % (len(text), MAX_BYTES))
        return json.loads(text.decode("ascii"))  # type: ignore[no-any-return]
    except Exception as error:  # a sample that it cannot describe is no reason not to serve
        log.logger.warning("inference-schema cannot describe run(): %s: %s", type(error).__name__, error)
        return {"input": _EMPTY, "output": _EMPTY, "versions": _VERSIONS}
