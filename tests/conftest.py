"""Shared by all tests: plugins are made known once, and `--plugins` adds some from outside the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import core.contracts  # noqa: E402, F401  (declares the kinds)
import registry  # noqa: E402

registry.discover("plugins")


def pytest_addoption(parser):
    parser.addoption(
        "--plugins",
        action="append",
        default=[],
        dest="hepar_plugins",
        metavar="NAME_OR_FILE",
        help="a package or a .py file with components; the contract tests test them too (may be repeated)",
    )


def pytest_configure(config):
    for reference in config.getoption("hepar_plugins"):
        try:
            registry.load(reference)
        except registry.RegistryError as error:
            raise pytest.UsageError(f"--plugins {reference}: {error}") from error


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    # Two threads sum in another order than one.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder where pip put tests/outside/package; on the path it is as good as an environment's own."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(ROOT / "tests" / "outside" / "package", folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", folder / "site", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def browser():
    """An installed Chromium, driven by Playwright; pages are opened in it from files."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed, so the page is not looked at in a browser (CI installs one)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
