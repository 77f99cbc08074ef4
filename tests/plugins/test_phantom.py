"""The phantom holds the ranges its docstring states, and its files survive being made twice, at once, or halfway."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

import plugins.source.phantom as phantom
from core.contracts import Case
from plugins.source.phantom import Phantom
from plugins.source.phantom.body import Tissue, draw_build
from plugins.source.phantom.case import BLOCK, CaseData, is_tumour_free, make_case, patient_of
from plugins.source.phantom.fields import Grid
from plugins.source.phantom.scanner import ORIENTATIONS, STORED, draw_protocol, encode

ROOT = Path(__file__).resolve().parents[2]
SEED = 152  # its first two cases and its pair 6, 7 are thick-sliced, hence quick to make
MEANS = {
    Tissue.LIVER: (90, 130),
    Tissue.SPLEEN: (100, 140),
    Tissue.KIDNEY: (140, 220),
    Tissue.FAT: (-120, -80),
    Tissue.MUSCLE: (45, 75),
    Tissue.BONE_TRABECULAR: (120, 250),
    Tissue.AORTA: (130, 190),
    Tissue.PORTAL_VEIN: (130, 190),
    Tissue.GALLBLADDER: (0, 20),
    Tissue.LUNG: (-1000, -700),
}


@pytest.fixture(scope="module")
def made() -> dict[tuple[int, int], CaseData]:
    return {key: make_case(*key) for key in ((SEED, 1), (SEED, 6), (SEED, 7), (98, 0))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    Phantom(root=root, cases=2, seed=SEED).cases()
    return root


def interior(case: CaseData, tissue: Tissue) -> np.ndarray:
    """Voxels that partial volume does not reach, and that lie in the field of view."""
    disc = np.zeros((3, 3, 3), bool)
    disc[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    return binary_erosion(case.tissue == tissue, disc, iterations=2) & (case.image > -1500)


def test_mean_hu_of_each_tissue_is_in_its_stated_range(made):
    seen = set()
    for key, case in made.items():
        for tissue, (low, high) in MEANS.items():
            where = interior(case, tissue)
            if where.sum() >= 30:  # else the noise alone moves the mean
                seen.add(tissue)
                assert low <= case.image[where].mean() <= high, (key, tissue.name)
        air = (case.true == -1000) & (case.image > -1024)
        assert abs(case.image[air].mean() + 1000) < 25
    assert seen == set(MEANS)


def test_noise_and_liver_volume_are_in_their_stated_ranges(made):
    for case in made.values():
        assert 8 <= case.image[interior(case, Tissue.LIVER)].std() <= 25
        assert 900 <= case.describe()["liver_ml"] <= 2300


def test_lesions_are_in_their_stated_ranges_and_all_of_them_are_in_the_label(made):
    for case in made.values():
        assert len(case.lesions) <= 12
        spacing = np.array(case.grid.spacing)
        tumour = np.argwhere(case.label == 2)
        origin = np.array([case.grid.z[0], case.grid.y[0], case.grid.x[0]])
        for lesion in case.lesions:
            assert 3 <= lesion.diameter_mm <= 60
            assert 10 <= abs(lesion.contrast_hu) <= 70
            assert 0.4 <= abs(lesion.contrast_hu) / case.protocol.noise_hu <= 8.5
            assert lesion.location in {"deep", "border"}
            away = np.linalg.norm(tumour * spacing + origin - lesion.centre_mm[::-1], axis=1)
            assert away.min() < lesion.diameter_mm / 2 + spacing[0]
        assert bool((case.label == 2).any()) == bool(case.lesions)


def test_a_lesion_differs_from_the_liver_by_its_contrast(made):
    checked = 0
    for case in made.values():
        liver = case.image[interior(case, Tissue.LIVER)].mean()
        z, y, x = (axis for axis in (case.grid.z, case.grid.y, case.grid.x))
        for lesion in case.lesions:
            if lesion.diameter_mm < 12 or lesion.look != "solid":
                continue
            middle = lesion.centre_mm
            away = (x[None, None] - middle[0]) ** 2 + (y[None, :, None] - middle[1]) ** 2
            core = away + (z[:, None, None] - middle[2]) ** 2 < (0.2 * lesion.diameter_mm) ** 2
            assert case.image[core].mean() - liver == pytest.approx(lesion.contrast_hu, abs=14)
            checked += 1
    assert checked


def test_label_agrees_with_the_tissues(made):
    for case in made.values():
        inside = np.isin(case.tissue, (Tissue.LIVER, Tissue.LIVER_VESSEL, Tissue.LESION, Tissue.CYST))
        assert set(np.unique(case.label)) <= {0, 1, 2}
        assert ((case.label > 0) == inside).mean() > 0.999
        assert (case.label[case.tissue == Tissue.LESION] == 2).all()


def test_values_stay_in_what_a_scanner_writes(made):
    for case in made.values():
        inside = case.image != -2048
        assert case.image[inside].min() >= -1024
        assert case.image.max() <= 3071


def test_two_scans_of_a_patient_share_the_anatomy_and_not_the_noise(made):
    first, second = made[SEED, 6], made[SEED, 7]
    assert first.patient == second.patient != made[SEED, 1].patient
    assert first.build == second.build
    assert [lesion.centre_mm for lesion in first.lesions] == [lesion.centre_mm for lesion in second.lesions]
    assert [lesion.diameter_mm for lesion in first.lesions] != [lesion.diameter_mm for lesion in second.lesions]
    assert first.protocol != second.protocol
    volumes = [case.describe()["liver_ml"] for case in (first, second)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.04)


def test_v1_is_frozen(made):
    """Published figures name the data set by its version: what this test holds may change only with a new one."""
    case = made[SEED, 1]
    truth = case.describe()
    assert (truth["patient"], truth["orientation"], truth["shape"]) == ("phantom-152-0001", "LPS", [54, 256, 256])
    assert [(lesion.diameter_mm, lesion.contrast_hu) for lesion in case.lesions] == [(46.85, -48.14), (9.26, 37.69)]
    assert np.bincount(case.label.ravel()) == pytest.approx([3397884, 134621, 6439], rel=1e-4)
    assert case.image.mean() == pytest.approx(-590.231, abs=0.01)
    assert case.image.std() == pytest.approx(483.406, abs=0.01)


def test_one_case_in_ten_is_tumour_free():
    assert sum(is_tumour_free(0, patient_of(index)) for index in range(40 * BLOCK)) == 32


def test_a_tumour_free_case_has_no_tumour(made):
    assert is_tumour_free(98, 0)
    assert not made[98, 0].lesions
    assert not (made[98, 0].label == 2).any()


def test_scans_vary_as_those_of_lits_do():
    protocols = [draw_protocol(np.random.default_rng((0, 2, i)), draw_build((0, 1, i))) for i in range(150)]
    codes = {protocol.orientation for protocol in protocols}
    assert len(codes) >= 7
    assert any(code[2] not in "SI" for code in codes), "permuted axes"
    assert {protocol.stored for protocol in protocols} == set(STORED)
    assert {protocol.padding for protocol in protocols} == {None, -1024.0, -2048.0}
    assert min(protocol.thickness_mm for protocol in protocols) == 1
    assert max(protocol.thickness_mm for protocol in protocols) == 5
    assert all(1.1 < protocol.pixel_mm < 2 for protocol in protocols)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_encoding_keeps_values_and_places_in_every_orientation(orientation):
    grid = Grid(*(np.arange(n, dtype=np.float32) * step + 3 for n, step in ((3, 5.0), (4, 1.5), (6, 1.25))))
    volume = np.random.default_rng(0).integers(-1024, 1500, grid.shape)
    for stored in STORED:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(encode(volume, grid, orientation, stored)))
        assert "".join(nib.aff2axcodes(image.affine)) == orientation
        straight = nib.as_closest_canonical(image)
        np.testing.assert_array_equal(straight.get_fdata(), np.transpose(volume, (2, 1, 0))[::-1, ::-1])
        # the voxel nearest the left, the back and the head lies where the grid says, with NIfTI's signs
        np.testing.assert_allclose(straight.affine[:3, 3], (-grid.x[-1], -grid.y[-1], grid.z[0]), atol=1e-4)


def test_cases_are_listed_with_files_that_share_an_affine(folder):
    cases = Phantom(root=folder, cases=2, seed=SEED).cases()
    assert [type(case) for case in cases] == [Case, Case]
    assert len({case.id for case in cases}) == 2
    for case in cases:
        assert case.origin == "PHANTOM v1"
        image, label = nib.load(case.image), nib.load(case.label)
        np.testing.assert_array_equal(image.affine, label.affine)
        assert image.shape == label.shape
        assert set(np.unique(np.asarray(label.dataobj))) <= {0, 1, 2}
    assert [path.name for path in (cases[1].image, cases[1].label)] == ["volume-1.nii.gz", "segmentation-1.nii.gz"]


def test_manifest_tells_the_truth_of_every_case(folder):
    source = Phantom(root=folder, cases=2, seed=SEED)
    cases = source.cases()
    manifest = json.loads((source.folder / "manifest.json").read_text())
    assert (manifest["version"], manifest["seed"]) == ("v1", SEED)
    for index, case in enumerate(cases):
        truth = manifest["cases"][str(index)]
        image = nib.load(case.image)
        assert truth["patient"] == case.patient
        assert truth["orientation"] == "".join(nib.aff2axcodes(image.affine))
        assert sorted(truth["shape"]) == sorted(image.shape)
        assert sorted(truth["spacing_mm"]) == pytest.approx(sorted(map(float, image.header.get_zooms())), abs=1e-3)
        for lesion in truth["lesions"]:
            assert {"id", "diameter_mm", "contrast_hu", "location"} <= set(lesion)


def test_the_same_seed_gives_the_same_arrays_in_another_process(folder, made):
    """The files were written by workers, the arrays here by this process."""
    case, there = made[SEED, 1], Phantom(root=folder, cases=2, seed=SEED)
    expected = encode(case.image, case.grid, case.protocol.orientation, case.protocol.stored)
    assert (there.folder / "volume-1.nii.gz").read_bytes() == expected


def test_a_case_does_not_depend_on_how_many_are_asked_for(folder, tmp_path):
    alone = Phantom(root=tmp_path, cases=1, seed=SEED).cases()
    among = Phantom(root=folder, cases=2, seed=SEED).cases()
    assert alone[0].image.read_bytes() == among[0].image.read_bytes()
    assert alone[0].label.read_bytes() == among[0].label.read_bytes()
    assert alone[0].id == among[0].id


def test_asking_for_fewer_cases_or_another_seed_mixes_nothing_up(folder, monkeypatch):
    monkeypatch.setattr(phantom, "generate", lambda *_: pytest.fail("all was there"))
    assert len(Phantom(root=folder, cases=1, seed=SEED).cases()) == 1
    assert len(Phantom(root=folder, cases=2, seed=SEED).cases()) == 2
    assert Phantom(root=folder, seed=SEED + 1).folder != Phantom(root=folder, seed=SEED).folder


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, made, monkeypatch):
    source = Phantom(root=tmp_path, cases=1, seed=SEED)
    asked = []

    def quick(seed: int, index: int) -> CaseData:
        asked.append(index)
        return made[SEED, 1]

    def killed(start: object, end: Path) -> None:
        if Path(end).name.startswith("segmentation"):
            raise KeyboardInterrupt
        rename(start, end)

    rename = os.replace
    monkeypatch.setattr(phantom, "make_case", quick)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            source.cases()
    left = list(source.folder.glob(".segmentation*.tmp"))
    assert len(left) == 1
    os.utime(left[0], (0, 0))
    assert len(source.cases()) == 1
    assert asked == [0, 0]
    assert not list(source.folder.glob("**/.*.tmp"))
    source.cases()
    assert asked == [0, 0]


def test_two_processes_may_ask_at_once(tmp_path):
    code = (
        "import sys, pathlib; from plugins.source.phantom import Phantom\n"
        f"print(len(Phantom(root=pathlib.Path(sys.argv[1]), cases=1, seed={SEED}).cases()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err.decode()
        assert out.split() == [b"1"]
    folder = tmp_path / f"v1-seed{SEED}"
    assert nib.load(folder / "volume-0.nii.gz").get_fdata().shape == nib.load(folder / "segmentation-0.nii.gz").shape
    assert list(json.loads((folder / "manifest.json").read_text())["cases"]) == ["0"]
    assert not list(folder.glob("**/.*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cases": 0}, "phantom: cases must be 1 or more, got 0"),
        ({"seed": -1}, "phantom: seed must be 0 or more, got -1"),
        ({"version": "v2"}, "phantom: unknown version 'v2'; the only one there is: 'v1'"),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        Phantom(**arguments)
