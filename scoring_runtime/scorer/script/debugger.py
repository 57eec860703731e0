"""Waits for a person's debugger before the script is loaded: debugpy of the user's own environment (contract 1.4)."""

import sys
import traceback

from ..loop import LoadError


def wait_for(port: int) -> None:
    """Connect to the debugger that listens on `port`, and wait until it lets go; LoadError when that cannot be."""
    print("!! Starting the inference server in DEBUGGING mode because AZUREML_DEBUG_PORT is set.")  # noqa: T201
    print("!! This environment variable should not be set in a production environment.")  # noqa: T201
    try:
        import debugpy
    except ImportError as error:
        raise LoadError(
            "** Cannot connect to a debugger because debugpy is not installed.\n"
            "AZUREML_DEBUG_PORT is set, and %s cannot import debugpy: %s. Install it there, or unset the variable."
            % (sys.executable, error)
        ) from None
    print("** Connecting to debugger at port %d..." % port)  # noqa: T201
    try:
        debugpy.connect(port)
    except Exception as error:
        raise LoadError(
            "AZUREML_DEBUG_PORT is %d, and no debugger can be reached there: %s: %s. Start it first and let it listen "
            "on that port, or unset the variable." % (port, type(error).__name__, error),
            traceback.format_exc(),
        ) from None
    debugpy.wait_for_client()
