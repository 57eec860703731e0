"""The ONNX engine: a scorer process in the server's own interpreter."""
