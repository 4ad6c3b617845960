"""The library that is built when facenet is installed."""

import subprocess
from pathlib import Path

import pytest

import hatch_build
from facenet.faces.kernels import Kernels, source_digest

SOURCE = Path(hatch_build.__file__).parent / hatch_build.SOURCE


def test_a_missing_or_broken_library_is_told(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Kernels(tmp_path / "nowhere.lib")
    broken = tmp_path / "broken.lib"
    broken.write_bytes(b"no library")
    with pytest.raises(OSError, match="broken"):
        Kernels(broken)


def test_without_a_compiler_that_works_nothing_is_built(tmp_path):
    library = tmp_path / "kernels.lib"
    assert not hatch_build.build(SOURCE, library, ["no-such-compiler", "false"])
    assert list(tmp_path.iterdir()) == []
    assert hatch_build.build(SOURCE, library, ["false", *hatch_build.compilers()])
    assert list(tmp_path.iterdir()) == [library]
    assert Kernels(library).source == hatch_build.digest(SOURCE.parent) == source_digest()


def test_the_source_has_no_warning(tmp_path):
    flags = [*hatch_build.FLAGS, "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *flags, "-o", str(tmp_path / "kernels.lib"), str(SOURCE)]
    subprocess.run(command, check=True)
