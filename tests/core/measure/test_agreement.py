"""Agreement with independent public packages where definitions agree; docs/agreement.md says where they do not."""

import json
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from agreement_pairs import COUNT, confluent, fingerprint, make_pairs

from core.measure import overlap, surface
from core.measure.matching import THRESHOLDS, match_at, overlaps
from core.measure.pair import CasePair

TOLERANCES = (1.0, 2.0, 3.0)
PAIRS = make_pairs()
STRUCTURES = ("liver", "tumour")


def case(number):
    pred, ref, spacing = PAIRS[number]
    return CasePair(str(number), pred, ref, spacing)


def masks(number, structure):
    """Of the whole volume, as the other packages get them."""
    pred, ref, _ = PAIRS[number]
    return (pred >= 1, ref >= 1) if structure == "liver" else (pred == 2, ref == 2)


def both_sided(structure):
    """The pairs that have the structure on both sides."""
    return [n for n in range(COUNT) if all(mask.any() for mask in masks(n, structure))]


def close(ours, theirs):
    assert ours == pytest.approx(theirs, abs=1e-6, rel=1e-6)


def test_the_pairs_are_worth_it():
    assert COUNT >= 20
    assert len(both_sided("tumour")) == COUNT - 2
    apart = [surface.of_pair(case(n), "tumour", "edge6") for n in both_sided("tumour")]
    assert sum(d.nsd(1.0) < 0.9 for d in apart) >= 10
    assert sum(d.hd() > 4 for d in apart) >= 10


class TestSurfaceDistance:
    """DeepMind's surface-distance: the surface between voxels, weighted by area."""

    def found(self, number, structure):
        surface_distance = import_module("surface_distance")

        pred, ref = masks(number, structure)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return surface_distance, surface_distance.compute_surface_distances(ref, pred, PAIRS[number][2])

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_distances_by_area(self, structure):
        for number in both_sided(structure):
            package, theirs = self.found(number, structure)
            ours = surface.of_pair(case(number), structure, "element")
            for tau in TOLERANCES:
                close(ours.nsd(tau), package.compute_surface_dice_at_tolerance(theirs, tau))
            close(ours.hd95(), package.compute_robust_hausdorff(theirs, 95))
            close(ours.hd(), package.compute_robust_hausdorff(theirs, 100))
            # It gives the two directed means; the pooled one follows with the areas.
            means = package.compute_average_surface_distance(theirs)
            areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
            close(ours.assd(), sum(m * a for m, a in zip(means, areas, strict=True)) / sum(areas))

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_dice(self, structure):
        surface_distance = import_module("surface_distance")

        for number in range(COUNT):
            pred, ref = masks(number, structure)
            close(overlap.dice(case(number).counts(structure)), surface_distance.compute_dice_coefficient(ref, pred))


class TestMedpy:
    """medpy: voxels of the mask with a neighbour outside; connectivity 1 is edge6 and 2 is edge18."""

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_distances_of_border_voxels(self, structure):
        binary = import_module("medpy.metric.binary")

        for number in both_sided(structure):
            pred, ref = masks(number, structure)
            for name, connectivity in (("edge6", 1), ("edge18", 2)):
                ours = surface.of_pair(case(number), structure, name)
                close(ours.assd(), binary.assd(pred, ref, PAIRS[number][2], connectivity))
                close(ours.hd(), binary.hd(pred, ref, PAIRS[number][2], connectivity))

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_overlap(self, structure):
        binary = import_module("medpy.metric.binary")

        for number in both_sided(structure):
            pred, ref = masks(number, structure)
            counts = case(number).counts(structure)
            close(overlap.dice(counts), binary.dc(pred, ref))
            close(overlap.iou(counts), binary.jc(pred, ref))
            close((counts.pred - counts.ref) / counts.ref, binary.ravd(pred, ref))
            close(counts.both / counts.pred, binary.precision(pred, ref))
            close(counts.both / counts.ref, binary.recall(pred, ref))

    def test_its_hd95_pools_both_directions(self):
        binary = import_module("medpy.metric.binary")

        different = 0
        for number in both_sided("tumour"):
            pred, ref = masks(number, "tumour")
            theirs = binary.hd95(pred, ref, PAIRS[number][2])
            ours = surface.of_pair(case(number), "tumour", "edge6")
            close(float(np.percentile(np.concatenate([ours.pred, ours.ref]), 95)), theirs)
            different += abs(ours.hd95() - theirs) > 0.1
        assert different >= 5


class TestMonai:
    """MONAI: edge6, or with `use_subvoxels` the surface by area; it computes in float32."""

    def tensors(self, number):
        import torch

        # Channels: background (left out by the functions), liver, tumour.
        stacked = [torch.from_numpy(np.stack([mask, *both]))[None] for mask, *both in self.sides(number)]
        return stacked[0], stacked[1]

    def sides(self, number):
        for side in (0, 1):
            liver, tumour = masks(number, "liver")[side], masks(number, "tumour")[side]
            yield ~liver, liver, tumour

    def test_distances(self):
        monai = import_module("monai.metrics")
        for number in both_sided("tumour"):
            pred, ref = self.tensors(number)
            spacing = PAIRS[number][2]
            ours = [surface.of_pair(case(number), s, "edge6") for s in STRUCTURES]
            areas = [surface.of_pair(case(number), s, "element") for s in STRUCTURES]
            mean = monai.compute_average_surface_distance(pred, ref, symmetric=True, spacing=spacing)
            greatest = monai.compute_hausdorff_distance(pred, ref, spacing=spacing)
            most = monai.compute_hausdorff_distance(pred, ref, percentile=95, spacing=spacing)
            for column in range(2):
                close(ours[column].assd(), float(mean[0, column]))
                close(ours[column].hd(), float(greatest[0, column]))
                # Its percentile is interpolated in float32, place and all.
                assert ours[column].hd95() == pytest.approx(float(most[0, column]), rel=1e-5)
            for taus in ((1.0, 2.0), (2.0, 3.0), (3.0, 1.0)):
                near = monai.compute_surface_dice(pred, ref, taus, spacing=spacing)
                by_area = monai.compute_surface_dice(pred, ref, taus, spacing=spacing, use_subvoxels=True)
                for column, tau in enumerate(taus):
                    close(ours[column].nsd(tau), float(near[0, column]))
                    close(areas[column].nsd(tau), float(by_area[0, column]))

    def test_one_empty_side_has_an_nsd_of_0(self):
        monai = import_module("monai.metrics")
        for number in (COUNT - 2, COUNT - 1):
            pred, ref = self.tensors(number)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                near = monai.compute_surface_dice(pred, ref, [1.0, 1.0], spacing=PAIRS[number][2])
            ours = surface.figures(case(number), "tumour", surface="edge6", tolerances_mm=(1.0,), empty="lits")
            assert ours["nsd_1mm"] == float(near[0, 1]) == 0

    def test_overlap(self):
        monai = import_module("monai.metrics")
        for number in both_sided("tumour"):
            pred, ref = self.tensors(number)
            dice = monai.compute_dice(pred, ref, include_background=False)
            iou = monai.compute_iou(pred, ref, include_background=False)
            for column, structure in enumerate(STRUCTURES):
                counts = case(number).counts(structure)
                close(overlap.dice(counts), float(dice[0, column]))
                close(overlap.iou(counts), float(iou[0, column]))


class TestPanoptica:
    """panoptica's figures as recorded by write_panoptica.py; it matches one to one as well."""

    FILE = Path(__file__).with_name("panoptica.json")

    def recorded(self):
        """Of each pair."""
        found = json.loads(self.FILE.read_text(encoding="utf-8"))
        assert found["pairs"] == fingerprint(PAIRS), "the pairs changed: write panoptica.json again"
        return found["figures"]

    def matched(self, number, name):
        """Ours: lesions of both sides, overlaps, and which of them are matched."""
        one = case(number)
        ref, pred = one.lesions("ref"), one.lesions("pred")
        found = overlaps(ref, pred)
        return ref, pred, found, match_at(found, THRESHOLDS[name])

    @pytest.mark.parametrize("name", ["iou_0.1", "iou_0.5"])
    def test_detections_and_panoptic_quality(self, name):
        for number, theirs in enumerate(self.recorded()):
            ref, pred, found, chosen = self.matched(number, name)
            tp, fp, fn = len(chosen), pred.count - len(chosen), ref.count - len(chosen)
            assert (tp, fp, fn) == tuple(theirs[name][key] for key in ("tp", "fp", "fn")), number
            if tp:
                sq, rq = found.iou[chosen].mean(), tp / (tp + fp / 2 + fn / 2)
                dice = 2 * found.voxels[chosen] / (ref.voxels[found.ref[chosen]] + pred.voxels[found.pred[chosen]])
                ours = {"sq": sq, "rq": rq, "pq": sq * rq, "sq_dsc": dice.mean()}
                ours["global_bin_dsc"] = overlap.dice(case(number).counts("tumour"))
                for key, value in ours.items():
                    close(value, theirs[name][key])

    def test_its_assd_is_the_mean_of_both_directed_means(self):
        different = 0
        for number, theirs in enumerate(self.recorded()):
            ref, pred, found, chosen = self.matched(number, "iou_0.5")
            pooled, means = [], []
            for r, p in zip(found.ref[chosen], found.pred[chosen], strict=True):
                whole = tuple(slice(0, n) for n in PAIRS[number][0].shape)
                apart = surface.between(pred.inside(whole) == p, ref.inside(whole) == r, PAIRS[number][2], "edge6")
                pooled.append(apart.assd())
                means.append((apart.pred.mean() + apart.ref.mean()) / 2)
            if len(chosen):
                close(np.mean(means), theirs["iou_0.5"]["sq_assd"])
                different += abs(np.mean(pooled) - np.mean(means)) > 1e-3
        assert different >= 3

    def test_its_greatest_sum_of_iou_can_lose_a_detection_that_the_greatest_number_keeps(self):
        recorded = json.loads(self.FILE.read_text(encoding="utf-8"))["confluent"]
        pred, ref, spacing = confluent()
        one = CasePair("confluent", pred, ref, spacing)
        found = overlaps(one.lesions("ref"), one.lesions("pred"))
        assert (len(match_at(found, 0.0)), recorded["tp"]) == (2, 1)
        for number, theirs in enumerate(self.recorded()):
            assert len(self.matched(number, "any")[3]) >= theirs["any"]["tp"]

    def test_the_recorded_figures_are_those_of_the_script(self):
        pytest.importorskip("panoptica", reason="panoptica is not installed (it is no test extra): figures as recorded")
        import write_panoptica

        assert json.loads(self.FILE.read_text(encoding="utf-8")) == write_panoptica.content()
