import math
import os
from pathlib import Path

import pytest

from facenet.errors import SettingsError
from facenet.models.engine import EngineSettings
from facenet.models.home import cpu_name, cpu_quota, cpu_threads, environment


@pytest.fixture
def places(monkeypatch):
    """Sets the variables that are given and unsets the others."""

    def set_only(**variables):
        for name in ("FACENET_HOME", "XDG_DATA_HOME", "FACENET_DEVICE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    monkeypatch.setenv("HOME", "/home/anna")
    return set_only


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        ({}, "/home/anna/.local/share/facenet"),
        ({"XDG_DATA_HOME": "/data"}, "/data/facenet"),
        ({"XDG_DATA_HOME": ""}, "/home/anna/.local/share/facenet"),
        ({"XDG_DATA_HOME": "data"}, "/home/anna/.local/share/facenet"),
        ({"FACENET_HOME": "/models"}, "/models"),
        ({"FACENET_HOME": "/models", "XDG_DATA_HOME": "/data"}, "/models"),
        ({"FACENET_HOME": "", "XDG_DATA_HOME": "/data"}, "/data/facenet"),
        ({"FACENET_HOME": "~/faces"}, "/home/anna/faces"),
    ],
)
def test_the_home_follows_the_variables(places, variables, home):
    places(**variables)
    assert environment().home == Path(home)


def test_a_relative_home_stays_where_it_was(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places(FACENET_HOME="here")
    assert environment().home == tmp_path / "here"


def test_a_home_that_cannot_be_found_is_an_error(places):
    places(FACENET_HOME="~no-such-user-of-this-machine/x")
    with pytest.raises(SettingsError, match="Set FACENET_HOME to a folder"):
        environment()


def test_the_device_follows_its_variable(places):
    places()
    assert environment().device == EngineSettings().device == "cpu"
    places(FACENET_DEVICE="CUDA")
    assert environment().device == EngineSettings().device == "cuda"
    assert EngineSettings(device="cpu").device == "cpu"
    places(FACENET_DEVICE="")
    assert environment().device == "cpu"
    places(FACENET_DEVICE="abacus")
    with pytest.raises(SettingsError, match="device should be one of cpu, .*; got 'abacus'"):
        EngineSettings()


def control_groups(tmp_path, files, membership=None):
    root = tmp_path / "cgroup"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    own = tmp_path / "own"
    if membership is not None:
        own.write_text(membership)
    return root, own


V1 = {"cpu/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({}, None, None),
        ({"cpu.max": "150000 100000\n"}, None, 1.5),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "50000 0\n"}, "0::/\n", None),
        ({"cpu.max": "broken"}, "0::/\n", None),
        ({"cpu.max": "broken"}, "broken", None),
        ({"user/job/cpu.max": "300000 100000"}, "0::/user/job\n", 3.0),
        ({"user/cpu.max": "25000 100000"}, "0::/user/job\n", 0.25),
        (
            {"user/cpu.max": "200000 100000", "user/job/cpu.max": "max 100000"},
            "0::/user/job\n",
            2.0,
        ),
        (
            {"user/cpu.max": "200000 100000", "user/job/cpu.max": "100000 200000"},
            "0::/user/job\n",
            0.5,
        ),
        ({"other/cpu.max": "100000 100000"}, "0::/user/job\n", None),
        (V1 | {"cpu/cpu.cfs_quota_us": "250000\n"}, None, 2.5),
        (V1 | {"cpu/cpu.cfs_quota_us": "-1\n"}, None, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, None, None),
        (V1 | {"cpu/cpu.cfs_quota_us": "250000\n"}, "4:cpu,cpuacct:/docker/1\n", 2.5),
        (
            {"cpu/jobs/cpu.cfs_quota_us": "50000", "cpu/jobs/cpu.cfs_period_us": "100000"},
            "5:memory:/elsewhere\n4:cpu,cpuacct:/jobs/1\n0::/\n",
            0.5,
        ),
        (
            {"cpu/jobs/cpu.cfs_quota_us": "50000", "cpu/jobs/cpu.cfs_period_us": "100000"},
            "4:cpuset:/jobs\n",
            None,
        ),
    ],
)
def test_the_quota_is_read_from_both_versions_of_control_groups(tmp_path, files, membership, cores):
    assert cpu_quota(*control_groups(tmp_path, files, membership)) == cores


def test_threads_follow_affinity_and_quota():
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    expected = allowed if quota is None else max(1, min(allowed, math.ceil(quota)))
    assert cpu_threads() == EngineSettings().threads == expected
    assert EngineSettings(threads=3).threads == 3
    with pytest.raises(SettingsError, match="1 or more, or 0 for the CPU quota; got -1"):
        EngineSettings(threads=-1)


def test_the_processor_has_a_name_that_stays():
    assert cpu_name() == cpu_name() != ""
