"""A store of case descriptions without files, for the tests of splits."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np


class FakeStore:
    """Case descriptions without files."""

    root = Path("data/x")

    def __init__(self, infos):
        self._infos = infos
        self.cases = tuple(infos)

    def info(self, case):
        return self._infos[case]

    def lesions(self, case):
        return [None] * self._infos[case].count

    def fingerprint(self, case):
        return self._infos[case].prints


def info(patient, tumour=0, content=None, labelled=True, liver=1000, **more):
    known = {
        "patient": patient,
        "tumour_voxels": tumour,
        "liver_voxels": liver,
        "content_hash": content or patient,
        "labelled": labelled,
        "external": False,
        "part": "",
        "origin": "",
        "count": int(tumour > 0),
        "spacing_trusted": True,
        "native_spacing_mm": (2.5, 0.8, 0.8),
        "prints": np.zeros((0, 136), np.float16),
    }
    return SimpleNamespace(**{**known, **more})


def prints(seed, slices=12):
    """Fingerprints of a scan that looks like no other."""
    return np.random.default_rng(seed).uniform(-150, 200, (slices, 136)).astype(np.float16)


def lits_like(patients=131, free=13, seed=0):
    """Cases of as many patients; some have two scans, some no label."""
    infos = {}
    for i in range(patients):
        tumour = 0 if i < free else 3 * (i - free) + 1
        thickness = (1.0, 1.0, 2.5, 5.0)[i % 4]
        more = {"count": 0 if i < free else 1 + i * i % 12, "native_spacing_mm": (thickness, 0.8, 0.8)}
        infos[f"c-{i * 7 % patients}"] = info(f"p-{i}", tumour, content=f"h-{i}", spacing_trusted=i % 7 > 0, **more)
        if i % 10 == 3:
            infos[f"c-{i * 7 % patients}-again"] = info(f"p-{i}", tumour + 50, content=f"h2-{i}")
    for i in range(20):
        infos[f"test-{i}"] = info(f"t-{i}", labelled=False)
    infos = dict(sorted(infos.items()))
    return FakeStore(infos)
