from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshr_deploy.pack.kit import PackSettings, pack
from sshr_deploy.pack.targets import TARGETS, TargetName
from tests.pack.stand_ins import write_bundle, write_index, write_project


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("index") / "wheels")


@pytest.fixture(scope="session", autouse=True)
def offline_pip(index: Path) -> Iterator[None]:
    """pip as somebody without a network configures it, and nothing of this machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            patch.delenv(name)
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(index))
        patch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads 0 as "no isolation"
        yield


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="session")
def settings(project: Path) -> PackSettings:
    return PackSettings(TARGETS[TargetName.LINUX_CPU], "3.11", project, max_part_mb=1)


@pytest.fixture(scope="session")
def packed(
    tmp_path_factory: pytest.TempPathFactory, bundle_dir: Path, settings: PackSettings
) -> Path:
    """A kit that no test changes."""
    return pack(bundle_dir, tmp_path_factory.mktemp("packed") / "kit", settings).path


@pytest.fixture
def kit(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "Kit für Labor 1"))
