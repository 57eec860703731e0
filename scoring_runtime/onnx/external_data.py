"""Weights outside of the model file: only files within the model's own folder are read.

A model is data from somewhere. Without this rule it could make the server read any file that the server may read.
"""

from pathlib import Path, PurePosixPath, PureWindowsPath

from .model_file import ExternalTensor


def why_refused(model: Path, tensors: list[ExternalTensor]) -> str | None:
    """What is wrong with the external data of a model, with its cure; None when all of it is there and inside."""
    folder = model.parent.resolve()
    for tensor in tensors:
        if not tensor.locations:
            return f"tensor {tensor.name!r} has external data without a location: export the model again"
        for location in tensor.locations:
            why = _why_refused(folder, location, tensor)
            if why is not None:
                return f"tensor {tensor.name!r} has its data in {location!r}, {why}"
    return None


def _why_refused(folder: Path, location: str, tensor: ExternalTensor) -> str | None:
    inside = f"put the file into {folder} and export the model with a relative location"
    if not location or "\0" in location:
        return f"which is no file name: {inside}"
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute():
        return f"an absolute path: {inside}"
    if ".." in PurePosixPath(location).parts or ".." in PureWindowsPath(location).parts:
        return f"which points out of the model's folder: {inside}"
    try:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            return f"a link that leads out of the model's folder, to {path}: put the file itself into {folder}"
        if not path.is_file():
            return f"but there is no such file: put it into {folder}, beside the model"
        size = path.stat().st_size
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder that is closed, links in a ring
        return f"which cannot be looked at ({getattr(error, 'strerror', None) or error}): {inside}"
    if tensor.offset + tensor.length > size:
        return f"which ends at byte {size} before byte {tensor.offset + tensor.length}: copy the whole file again"
    return None
