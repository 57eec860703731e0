# Written by images/build.py from images.yaml. Change the description there.

group "default" {
  targets = ["cpu", "minimal", "openvino", "cuda", "tensorrt", "cpu-mpi", "cuda-mpi", "cpu-conda", "cuda-conda"]
}

target "cpu" {
  context = "images/context"
  target = "cpu"
  tags = ["localhost/scoring-runtime:cpu"]
  args = {
    BASE_IMAGE = "ubuntu:24.04"
    REQUIREMENTS = "serve.txt"
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "minimal" {
  context = "images/context"
  target = "minimal"
  tags = ["localhost/scoring-runtime:minimal"]
  args = {
    BASE_IMAGE = "debian:12"
    REQUIREMENTS = "serve.txt"
    MINIMAL_BASE_IMAGE = "gcr.io/distroless/python3-debian12"
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "openvino" {
  context = "images/context"
  target = "openvino"
  tags = ["localhost/scoring-runtime:openvino"]
  args = {
    BASE_IMAGE = "ubuntu:24.04"
    REQUIREMENTS = "openvino.txt"
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "cuda" {
  context = "images/context"
  target = "cuda"
  tags = ["localhost/scoring-runtime:cuda"]
  args = {
    BASE_IMAGE = "ubuntu:24.04"
    REQUIREMENTS = "cuda.txt"
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "tensorrt" {
  context = "images/context"
  target = "tensorrt"
  tags = ["localhost/scoring-runtime:tensorrt"]
  args = {
    BASE_IMAGE = "nvcr.io/nvidia/tensorrt:25.09-py3"
    REQUIREMENTS = "gpu.txt"
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "cpu-mpi" {
  context = "images/context"
  target = "mpi"
  contexts = { parent = "target:cpu" }
  tags = ["localhost/scoring-runtime:cpu-mpi"]
  args = {
    PARENT_IMAGE = "parent"
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "cuda-mpi" {
  context = "images/context"
  target = "mpi"
  contexts = { parent = "target:cuda" }
  tags = ["localhost/scoring-runtime:cuda-mpi"]
  args = {
    PARENT_IMAGE = "parent"
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "cpu-conda" {
  context = "images/context"
  target = "conda"
  contexts = { parent = "target:cpu" }
  tags = ["localhost/scoring-runtime:cpu-conda"]
  args = {
    PARENT_IMAGE = "parent"
    CONDA_INSTALLER_URL = null # from the environment
    CONDA_INSTALLER_SHA256 = null # from the environment
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "cuda-conda" {
  context = "images/context"
  target = "conda"
  contexts = { parent = "target:cuda" }
  tags = ["localhost/scoring-runtime:cuda-conda"]
  args = {
    PARENT_IMAGE = "parent"
    CONDA_INSTALLER_URL = null # from the environment
    CONDA_INSTALLER_SHA256 = null # from the environment
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}
