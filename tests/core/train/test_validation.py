"""Validation: the same at any number of ranks, slices to look at, names known beforehand, stopped when asked."""

import os
import pickle
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch
from harness import ROOT, write_scans

import registry
from core import config
from core.build import make_plan
from core.data.prepare import prepare
from core.data.store import Store
from core.errors import UserError
from core.infer.geometry import Geometry
from core.measure.pair import CasePair
from core.measure.score import measure as measure_score
from core.measure.score import score
from core.train.objective import Objective
from core.train.validate import Validation, choose_slices

# Runs in each rank.
RANKS = """
import sys
sys.path.insert(0, {root!r})
import pickle, torch
import core.contracts, registry
from pathlib import Path
from core import config, dist
from core.build import make_plan
from core.data.store import Store
from core.infer.geometry import Geometry
from core.infer.network import Network
from core.train.objective import Objective
from core.train.validate import Validation

registry.discover("plugins")
plan = lambda kind, text: make_plan(kind, config.parse(text), kind, [])
device = dist.start(60)
folder = Path(sys.argv[1])
torch.manual_seed(0)
network = Network(torch.nn.Identity(), torch.nn.Conv2d(1, 3, 3, padding=1), Geometry())
store, asked = Store(folder / "store"), []

def stop(at=None):
    asked.append(None)
    return dist.rank() == 1 and len(asked) == at

validation = Validation(
    store=store, cases=store.cases[:7], geometry=Geometry(), inferer=plan("inferer", "{{name: slices}}"),
    metrics=[plan("metric", "{{name: dice}}")], postprocess=[], device=device, precision="fp32",
    objective=Objective([("cross_entropy", 1.0, torch.nn.CrossEntropyLoss(ignore_index=255))]),
)
stopped = (validation(network, lambda: stop(2)), len(asked))
asked.clear()
result = validation(network, stop)
out = (result.metrics, result.rows, result.examples)
(folder / f"{{dist.world()}}_{{dist.rank()}}.pickle").write_bytes(pickle.dumps((stopped, out, len(asked))))
dist.stop()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight prepared scans; the first and the fifth have no tumour."""
    folder = tmp_path_factory.mktemp("validation")
    write_scans(folder / "scans")
    source = registry.get("source", "lits").target(root=folder / "scans")
    assert not prepare(source, folder / "store", workers=0, source_config={"name": "lits"}).bad
    (folder / "ranks.py").write_text(RANKS.format(root=str(ROOT)))
    return folder


@pytest.fixture(scope="module")
def three(folder):
    """What each of three ranks found: the validation that rank 1 stopped, and the one that went on to its end.

    Each is what the validation gave and how often it asked whether to stop.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3"]
    done = subprocess.run(
        [sys.executable, *launcher, str(folder / "ranks.py"), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [found(folder, 3, rank) for rank in range(3)]


def found(folder, world, rank):
    return pickle.loads((folder / f"{world}_{rank}.pickle").read_bytes())


def validation(folder, *metrics, cases=None, postprocess=()):
    def plan(kind, text):
        problems = []
        made = make_plan(kind, config.parse(text), kind, problems)
        assert problems == []
        return made

    store = Store(folder / "store")
    return Validation(
        store=store,
        cases=store.cases if cases is None else cases,
        geometry=Geometry(),
        inferer=plan("inferer", "{name: slices}"),
        metrics=[plan("metric", m) for m in metrics],
        postprocess=postprocess,
        objective=Objective([("mean", 1.0, lambda logits, target: logits.mean())]),
        device=torch.device("cpu"),
        precision="fp32",
    )


class Everywhere(torch.nn.Module):
    """Calls every voxel tumour."""

    def forward(self, image):
        return torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(len(image), 3, *image.shape[-2:])


@pytest.mark.slow
def test_three_ranks_give_the_rows_and_slices_of_one_and_the_slices_on_rank_0_alone(folder, three, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ranks.py", str(folder)])
    runpy.run_path(str(folder / "ranks.py"))
    _, alone, asked = found(folder, 1, 0)
    assert asked == 7
    assert "val/score" in alone[0]
    assert sum(asked for _, _, asked in three) == 7
    for _, (metrics, rows, _), _ in three:
        assert (metrics, rows) == alone[:2]
    first, *others = [examples for _, (_, _, examples), _ in three]
    assert others == [[], []]
    assert [(e.case, e.z) for e in first] == [(e.case, e.z) for e in alone[2]]
    for mine, theirs in zip(first, alone[2], strict=True):
        for name in ("image", "reference", "pred"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.slow
def test_one_rank_that_is_asked_to_stop_ends_the_validation_of_all(three):
    # Rank 1 stops before its second case; the others have their own cases done by the time they hear of it.
    assert [result for (result, _), _, _ in three] == [None] * 3
    assert three[1][0][1] == 2


def test_stops_before_the_next_case(folder):
    measured = validation(folder, "{name: dice}")
    answers = [False, False, True]
    assert measured(Everywhere(), lambda: answers.pop(0)) is None
    assert answers == []
    assert measured(Everywhere(), lambda: False).metrics == measured(Everywhere()).metrics


def test_slices_to_look_at_are_whole_and_after_postprocessing(folder):
    def liver_only(labels, spacing_mm):
        return np.minimum(labels, 1)

    store = Store(folder / "store")
    examples = validation(folder, "{name: dice}", postprocess=[liver_only])(Everywhere()).examples
    assert [(e.case, e.z) for e in examples] == list(choose_slices(store, store.cases).items())
    for example in examples:
        assert np.array_equal(example.image, store.image(example.case, [example.z])[0])
        assert np.array_equal(example.reference, store.label(example.case, [example.z])[0])
        assert (example.reference == 2).any()
        assert (example.pred == 1).all()
        assert (example.image.dtype, example.reference.dtype, example.pred.dtype) == (np.int16, np.uint8, np.uint8)
        # Not views: the volumes can go.
        assert all(a.base is None for a in (example.image, example.reference, example.pred))


def test_tumours_come_first_and_the_slice_with_the_most_of_it(folder):
    store = Store(folder / "store")
    bearing = [c for c in store.cases if store.info(c).tumour_voxels]
    healthy = [c for c in store.cases if c not in bearing]
    assert (len(bearing), len(healthy)) == (6, 2)
    assert list(choose_slices(store, [*healthy, *bearing])) == bearing[:4]
    shown = choose_slices(store, [*healthy, *bearing[:2]])
    assert list(shown) == [*bearing[:2], *healthy]
    for case, z in shown.items():
        labels = store.label(case)
        areas = ((labels == 2) if case in bearing else (labels > 0)).sum(axis=(1, 2))
        assert areas[z] == areas.max() > 0
    assert choose_slices(store, []) == {}


def test_names_are_those_that_a_validation_gives(folder):
    measured = validation(folder, "{name: dice}", "{name: iou}")
    assert sorted(measured.names()) == sorted(measured(Everywhere()).metrics)
    assert {"val/loss", "val/tumour/dice", "val/tumour_free/specificity"} <= set(measured.names())


def test_names_lack_what_these_cases_cannot_give(folder):
    store = Store(folder / "store")
    bearing = [c for c in store.cases if store.info(c).tumour_voxels]
    measured = validation(folder, "{name: dice}", cases=bearing)
    assert "val/tumour_free/specificity" not in measured.names()
    assert sorted(measured.names()) == sorted(measured(Everywhere()).metrics)


def test_names_hold_the_sizes_of_these_lesions(folder):
    store = Store(folder / "store")
    sizes = np.concatenate([store.lesions(case)["diameter_mm"] for case in store.cases])
    assert 6 < sizes.min() < sizes.max() < 7.4
    measured = validation(folder, "{name: lesions, size_bins_mm: [6, 8]}")
    names = set(measured.names())
    assert "val/lesions/by_size/any/[0,6)/recall" not in names
    assert "val/lesions/by_size/any/[6,8)/recall" in names
    assert {name for name in measured(Everywhere()).metrics if name.endswith("recall")} <= names


def test_a_metric_that_cannot_measure_a_tiny_volume_leaves_the_names_open(folder):
    class Wants:
        def measure(self, pair):
            raise IndexError("at least 100 slices")

    measured = validation(folder, "{name: dice}")
    measured.metrics.append(Wants())
    assert measured.names() == []


def test_metrics_that_want_the_image_or_probabilities_are_known_beforehand(folder):
    class Wants:
        def measure(self, pair):
            assert pair.image.shape == pair.pred.shape == pair.probabilities.shape[1:]
            return {"cases": [{"case": pair.case, "structure": "liver", "mean_hu": float(pair.image.mean())}]}

        def summarise(self, tables):
            return {"liver": {"mean_hu": 1.0}}

    def asks(labels, spacing_mm, probabilities):
        return labels

    measured = validation(folder, postprocess=[asks])
    measured.metrics.append(Wants())
    assert measured.names() == ["val/loss", "val/score", "val/liver/mean_hu"]


def test_the_score_is_there_whatever_the_metrics_are_and_not_without_a_tumour(folder):
    store = Store(folder / "store")
    healthy = [c for c in store.cases if not store.info(c).tumour_voxels]
    for cases, expected in ((store.cases, ["val/loss", "val/score"]), (healthy, ["val/loss"])):
        measured = validation(folder, cases=cases)
        assert measured.names() == expected
        assert list(measured(Everywhere()).metrics) == expected


def test_the_score_of_a_validation_is_that_of_its_volumes(folder):
    store = Store(folder / "store")
    expected = []
    for case in store.cases:
        reference = store.reference(case)
        expected.append(measure_score(CasePair(case, np.full_like(reference, 2), reference, (1.0, 1.0, 1.0))))
    found = validation(folder, "{name: dice}")(Everywhere()).metrics["val/score"]
    assert found == score(expected)
    assert 0 < found < 1


def test_a_metric_that_calls_its_own_figure_score_is_refused(folder):
    class Mine:
        def measure(self, pair):
            return {}

        def summarise(self, tables):
            return {"score": 0.5}

    measured = validation(folder)
    measured.metrics.append(Mine())
    with pytest.raises(UserError, match="two metrics give 'score' different values"):
        measured(Everywhere())
