"""The long kill tests are left out unless HEPAR_LONG_TESTS=1."""

import os


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes most of an hour in all; runs with HEPAR_LONG_TESTS=1 alone")


def pytest_collection_modifyitems(config, items):
    if os.environ.get("HEPAR_LONG_TESTS") == "1":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
