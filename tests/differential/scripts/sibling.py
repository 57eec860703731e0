import os
import sys

import my_helper
from my_package import inner

OPENED_AT_IMPORT = open("beside.txt").read()


def init():
    pass


def run(data):
    here = os.getcwd()
    return {
        "helper": my_helper.NAME,
        "package": inner.NAME,
        "opened": OPENED_AT_IMPORT,
        "name": __name__,
        "file": os.path.relpath(__file__, here),
        "app_root": os.path.relpath(os.environ["AML_APP_ROOT"], here),
        "entry": os.path.relpath(os.environ["AZUREML_ENTRY_SCRIPT"], here),
        "model_dir": os.environ.get("AZUREML_MODEL_DIR"),
        "app root on path": any(os.path.realpath(path) == os.path.realpath(here) for path in sys.path),
    }
