"""A server that is to build TensorRT engines in the background, where they cannot be had: a driver that is a stub.

That a session of TensorRT is swapped in shows on a GPU only: tests/gpu/test_tensorrt.py.
"""

IRIS = {"data": [[5.1, 3.5, 1.4, 0.2]]}


def test_the_next_provider_serves_on_when_tensorrt_cannot_be_had(serve, trained, stub_driver, wait_until, tmp_path):
    flags = ("--provider", "tensorrt,cpu", "--tensorrt-build", "background", "--cache-dir", str(tmp_path / "cache"))
    with serve(trained.iris, *flags, environ={"LD_LIBRARY_PATH": str(stub_driver)}) as server:
        first = server.score(IRIS)
        assert first.status == 200
        why = "kept CPUExecutionProvider: TensorrtExecutionProvider cannot be had: "
        wait_until(lambda: why in server.log, "the log does not say what became of TensorRT")
        assert server.score(IRIS).body == first.body
        assert len(server.scorers) == 1


def test_check_tells_what_goes_on_in_the_background(command, trained, stub_driver, tmp_path):
    flags = ("--provider", "tensorrt,cpu", "--tensorrt-build", "background", "--cache-dir", str(tmp_path / "cache"))
    ended = command("check", trained.iris, *flags, environ={"LD_LIBRARY_PATH": str(stub_driver)})
    assert ended.code == 0
    assert "building       tensorrt in the background; the log says when it is used" in ended.output
