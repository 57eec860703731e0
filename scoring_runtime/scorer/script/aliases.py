"""The modules of the incumbent that user code imports from, although nothing is installed that holds them.

Contract §4.5 and §7.1. They win over installed ones, whose decorators would tell another server than this one. The parents
`azureml`, `azureml.contrib` and `azureml.contrib.services` are given only where nothing installed has that name, so that
azureml.ai.monitoring and the like go on working beside them.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Dict, Optional

from . import log, request, response

_SERVER = "azureml_inference_server_http"


class _Given:
    """Finds and loads modules that exist already."""

    def __init__(self, modules: Dict[str, ModuleType]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        module = self._modules.get(name)
        if module is None:
            return None
        return ModuleSpec(name, self, is_package=hasattr(module, "__path__"))  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Make the modules importable."""
    aml_request = _module(_SERVER + ".api.aml_request", rawhttp=request.rawhttp, AMLRequest=request.Request)
    aml_response = _module(_SERVER + ".api.aml_response", AMLResponse=response.AMLResponse)
    log_config = _module(
        _SERVER + ".log_config", AMLLogFormatter=log.AMLLogFormatter, RootAccessFilter=log.RootAccessFilter
    )
    services = "azureml.contrib.services"
    winning = {
        _SERVER: _package(_SERVER),
        _SERVER + ".api": _package(_SERVER + ".api"),
        aml_request.__name__: aml_request,
        aml_response.__name__: aml_response,
        log_config.__name__: log_config,
        services + ".aml_request": aml_request,
        services + ".aml_response": aml_response,
    }
    yielding = {name: _package(name) for name in ("azureml", "azureml.contrib", services)}
    sys.meta_path.insert(0, _Given(winning))
    sys.meta_path.append(_Given(yielding))


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(contents)
    return module


def _package(name: str) -> ModuleType:
    return _module(name, __path__=[])
