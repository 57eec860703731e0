"""Scorers of one server and the folder of optimised models."""

from pathlib import Path


def test_of_several_scorers_one_writes_and_all_serve(serve, folded, tmp_path, wait_until):
    (tmp_path / "slow.onnx").write_bytes(folded(4000).SerializeToString())
    cache = tmp_path / "cache"

    with serve(tmp_path / "slow.onnx", "--scorers", "3", "--cache-dir", cache) as server:
        wait_until(lambda: "kept the optimised model" in server.log)
        assert server.log.count("kept the optimised model") == 1
        assert server.score({"data": [[1, 2, 3, 4]]}).json == {"outputs": {"y": [[4002.0, 4003.0, 4004.0, 4005.0]]}}
    assert names(cache) == [".json", ".onnx", "lock"]

    with serve(tmp_path / "slow.onnx", "--scorers", "3", "--cache-dir", cache) as server:
        assert "kept the optimised model" not in server.log
        assert "WARNING" not in server.log
        assert server.score({"data": [[0, 0, 0, 0]]}).json == {"outputs": {"y": [[4001.0] * 4]}}
    assert names(cache) == [".json", ".onnx", "lock"]


def names(cache: Path) -> list[str]:
    return sorted(path.suffix or path.name for path in (cache / "optimized").iterdir())
