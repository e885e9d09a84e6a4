"""What the client suites share: one large layer, one image, and an environment without a proxy."""

import pytest
from blackbox import Manifest, seeded_bytes

from clients.images import platform_image, tar_of

LARGE = 100 * 1024 * 1024  # bytes, the large layer of issue 2


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients inside this process (requests) use neither a proxy nor stored credentials."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")


@pytest.fixture(scope="session")
def large_tar() -> bytes:
    """A tar of one random file of 100 MB: nothing a compressor could shorten."""
    return tar_of({"large.bin": seeded_bytes("large", LARGE)})


@pytest.fixture(scope="session")
def large_image(large_tar: bytes) -> Manifest:
    """Three layers: the large one plain, a small one gzipped, a small one plain."""
    small = tar_of({"small.txt": b"small " * 10_000})
    other = tar_of({"other.bin": seeded_bytes("other", 300_000)})
    return platform_image([(large_tar, False), (small, True), (other, False)])


@pytest.fixture(scope="session")
def platforms() -> dict[str, Manifest]:
    """One small image for each of three architectures, sharing their first layer."""
    base = tar_of({"base.bin": seeded_bytes("base", 2_000_000)})
    return {
        architecture: platform_image(
            [(base, True), (tar_of({"arch": architecture.encode()}), True)], architecture
        )
        for architecture in ("amd64", "arm64", "riscv64")
    }
