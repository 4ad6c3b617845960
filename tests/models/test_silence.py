"""No runtime reports its use: nothing leaves the machine, nothing but our own files is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import socket, sys
from pathlib import Path
asked = []
socket.getaddrinfo = lambda *place, **more: asked.append(place) or []
socket.socket.connect = lambda self, place: asked.append(place)
import facenet
facenet.verify(sys.argv[2], sys.argv[3], engine=sys.argv[1])
print(asked)
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "auto"])
def test_a_verification_asks_no_network_and_leaves_no_id(
    engine: str, tmp_path: Path, examples: Path
) -> None:
    user, home = tmp_path / "user", tmp_path / "facenet-home"
    user.mkdir()
    photos = [str(examples / "known" / "Grace Hopper.jpg")] * 2
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, engine, *photos],
        env={**os.environ, "HOME": str(user), "FACENET_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "[]"
    assert [path for path in user.rglob("*") if path.is_file()] == []
