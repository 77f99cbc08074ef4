"""Validation of a store that is cropped and resampled: loss on its grid, metrics on the scans' own."""

import numpy as np
import pytest
import torch
from harness import write_scans

import registry
from core import config
from core.build import make_plan
from core.data.prepare import prepare
from core.data.store import Store
from core.infer.geometry import Geometry
from core.train.objective import Objective
from core.train.validate import Validation, choose_slices


class ByHU(torch.nn.Module):
    """Tumour around 60 HU, liver above."""

    def forward(self, image):
        hu = image[:, :1].float()
        return torch.cat([0 * hu, 30 - (hu - 110).abs(), 25 - (hu - 60).abs()], dim=1) / 10


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation_grid")
    write_scans(folder / "scans", count=3)
    source = registry.get("source", "lits").target(root=folder / "scans")
    more = {"spacing": (5.0, 1.2, 1.0), "crop": "liver", "margin_mm": 2.0}
    assert not prepare(source, folder / "store", workers=1, source_config={"name": "lits"}, **more).bad
    return Store(folder / "store")


def plan(kind, text):
    return make_plan(kind, config.parse(text), kind, [])


def test_loss_is_on_the_stored_grid_and_metrics_on_the_scans(store):
    seen = []

    def loss(logits, target):
        seen.append(tuple(target.shape))
        return torch.nn.functional.cross_entropy(logits.float(), target.long())

    def same(labels, spacing_mm, image):
        assert labels.shape == image.shape == (6, 32, 40)
        assert spacing_mm == pytest.approx((2.5, 0.8, 0.8))
        return labels

    validation = Validation(
        store=store,
        cases=store.cases,
        geometry=Geometry(divisor=1),
        inferer=plan("inferer", "{name: slices}"),
        metrics=[plan("metric", "{name: dice}")],
        postprocess=[same],
        objective=Objective([("loss", 1.0, loss)]),
        device=torch.device("cpu"),
        precision="fp32",
    )
    result = validation(ByHU())
    assert {shape[1:] for shape in seen} == {store.info(c).shape[1:] for c in store.cases}
    assert all(store.info(c).shape[0] < 6 for c in store.cases)
    shown = choose_slices(store, store.cases)
    for example in result.examples:
        assert example.z == store.grid(example.case).scan_z(shown[example.case])
        assert np.array_equal(example.reference, store.reference(example.case)[example.z])
        assert example.image.shape == example.pred.shape == (32, 40)
        assert example.reference.any()
    rows = {(row["case"], row["structure"]): row for row in result.rows}
    for case in store.cases:
        assert rows[case, "liver"]["voxels_ref"] == (store.reference(case) > 0).sum()
        assert rows[case, "liver"]["dice"] > 0.6
