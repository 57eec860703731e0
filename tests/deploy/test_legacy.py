"""Every name of an image that people have used before has an answer."""

import json
from importlib import resources

import pytest

from scoring_runtime import deploy
from scoring_runtime.deploy import legacy
from scoring_runtime.errors import UsageError

NAMES = {
    # as the documentation of Azure ML listed them
    "mcr.microsoft.com/azureml/o16n-sample-user-base/ubuntu-miniconda": "cpu-conda",
    "mcr.microsoft.com/azureml/onnxruntime:latest": "cpu",
    "mcr.microsoft.com/azureml/onnxruntime:latest-cuda": "cuda",
    "mcr.microsoft.com/azureml/onnxruntime:latest-tensorrt": "tensorrt",
    "mcr.microsoft.com/azureml/onnxruntime:latest-openvino-vadm": "openvino",
    "mcr.microsoft.com/azureml/onnxruntime:latest-openvino-myriad": "openvino",
    # the other tags of ONNX Runtime's table
    "mcr.microsoft.com/azureml/onnxruntime": "cpu",
    "mcr.microsoft.com/azureml/onnxruntime:v0.4.0": "cpu",
    "mcr.microsoft.com/azureml/onnxruntime:v1.5.2-cuda10.2-cudnn8": "cuda",
    "mcr.microsoft.com/azureml/onnxruntime:v0.4.0-tensorrt19.03": "tensorrt",
    "mcr.microsoft.com/azureml/onnxruntime:v1.7.0-openvino-2021.2.200": "openvino",
    "mcr.microsoft.com/azureml/onnxruntime:v0.5.0-openvino-r1.1-vadm": "openvino",
    "mcr.microsoft.com/azureml/onnxruntime:v1.5.2-openvino-2020.4.287-myriad": "openvino",
    "mcr.microsoft.com/azureml/onnxruntime:latest-openvino-cpu": "openvino",
    "mcr.microsoft.com/azureml/onnxruntime:latest-nuphar": None,
    "mcr.microsoft.com/azureml/onnxruntime:latest-migraphx": None,
    "mcr.microsoft.com/onnxruntime/server:latest": "cpu",
    # base images by what they held
    "mcr.microsoft.com/azureml/intelmpi2018.3-ubuntu16.04": "cpu-mpi",
    "mcr.microsoft.com/azureml/openmpi3.1.2-ubuntu18.04:20210301.v1": "cpu-mpi",
    "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04": "cpu-mpi",
    "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04": "cpu-mpi",
    "mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04": "cpu-mpi",
    "mcr.microsoft.com/azureml/intelmpi2018.3-cuda9.0-cudnn7-ubuntu16.04": "cuda-mpi",
    "mcr.microsoft.com/azureml/openmpi3.1.2-cuda10.1-cudnn7-ubuntu18.04": "cuda-mpi",
    "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04": "cuda-mpi",
    "mcr.microsoft.com/azureml/openmpi5.0-cuda12.6-ubuntu24.04": "cuda-mpi",
    "mcr.microsoft.com/azureml/lite/ubuntu16.04": "cpu-conda",
    "mcr.microsoft.com/azureml/base:openmpi3.1.2-ubuntu16.04": "cpu-conda",
    # images for inference
    "mcr.microsoft.com/azureml/minimal-ubuntu20.04-py38-cpu-inference:latest": "cpu",
    "mcr.microsoft.com/azureml/minimal-ubuntu20.04-py38-cuda11.6.2-gpu-inference": "cuda",
    "mcr.microsoft.com/azureml/inference-base-2204": "cpu",
    "mcr.microsoft.com/azureml/inference-base-cuda12.4-ubuntu22.04": "cuda",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_leads_to_its_successor(name: str):
    found = legacy.successor(name)
    assert found.image == NAMES[name]
    assert found.explanation


@pytest.mark.parametrize("name", ["latest-openvino-vadm", "latest-openvino-myriad"])
def test_hardware_that_is_gone_is_said_to_be_gone(name: str):
    text = legacy.successor(f"mcr.microsoft.com/azureml/onnxruntime:{name}").explanation
    assert "no plugin for that hardware since 2022.3" in text
    assert "runs on the CPU instead" in text


@pytest.mark.parametrize(
    "name",
    [
        "azureml/onnxruntime:latest-cuda",
        "registry.example:5000/azureml/onnxruntime:latest-cuda",
        "localhost/azureml/onnxruntime:latest-cuda",
        "MCR.microsoft.com/AzureML/onnxruntime:latest-cuda@sha256:0123",
        "  azureml/onnxruntime:latest-cuda\n",
    ],
)
def test_registry_case_and_digest_make_no_difference(name: str):
    assert legacy.successor(name).image == "cuda"


def test_a_name_that_was_never_in_the_family():
    with pytest.raises(
        UsageError, match=r"nginx: no image that this family takes the place of\. .*Known are .*azureml/"
    ):
        legacy.successor("nginx")


def test_every_row_can_be_reached():
    """A row that comes after a wider one would never count."""
    rows = json.loads(resources.files(deploy).joinpath(legacy.TABLE).read_text())["names"]
    for row in rows:
        example = row["name"].replace("*", "1")
        assert legacy.successor(example).explanation == row["explanation"], row["name"]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("o16n-sample-user-base/ubuntu-miniconda", "cpu-conda"),
        ("openmpi4.1.0-ubuntu22.04", "cpu-mpi"),
        ("intelmpi2018.3-ubuntu16.04", "cpu-mpi"),
        ("cpu/openmpi3.1.2-ubuntu18.04:20210101.v1", "cpu-mpi"),
        ("gpu/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04", "cuda-mpi"),
        ("lite/ubuntu16.04", "cpu-conda"),
        ("onnxruntime:latest-openvino-vadm", "openvino"),
    ],
)
def test_a_name_may_leave_out_its_group_or_have_the_folder_of_the_table(name: str, image: str):
    assert legacy.successor(name).image == image
