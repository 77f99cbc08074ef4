import json

import nibabel as nib
import numpy as np
import pytest
import yaml

import registry
from core import experiment as experiments
from core.build import build
from core.data.prepare import SourceError, prepare_experiment
from core.data.store import Store

Several = registry.get("source", "several").target
Lits = registry.get("source", "lits").target
Msd = registry.get("source", "msd").target
Folder = registry.get("source", "folder").target


@pytest.fixture
def data(tmp_path):
    """LiTS, MSD Task03 and Task08 and a hospital's folder, with files that nothing is in."""
    lits, msd, hv, own = (tmp_path / name for name in ("lits", "Task03_Liver", "Task08_HepaticVessel", "own"))
    for folder in (lits, msd, hv, own):
        folder.mkdir()
    for number in (0, 3):
        for what in ("volume", "segmentation"):
            (lits / f"{what}-{number}.nii").touch()
    (lits / "test-volume-1.nii").touch()
    for root, stem, number in ((msd, "liver", 1), (hv, "hepaticvessel", 3)):
        pair = {"image": f"./imagesTr/{stem}_{number}.nii.gz", "label": f"./labelsTr/{stem}_{number}.nii.gz"}
        labels = {"0": "background", "1": "liver", "2": "cancer"}
        (root / "dataset.json").write_text(json.dumps({"name": "x", "labels": labels, "training": [pair]}))
    (own / "volume-3.nii").touch()
    return {
        "lits": Lits(root=lits),
        "msd": Msd(root=msd),
        "hv": Msd(root=hv),
        "own": Folder(root=own, images="*.nii"),
    }


def test_ids_and_patients_are_made_one_sources_and_lits_patients_stay_one(data):
    cases = Several(sources=data, external=["hv"]).cases()
    assert [(c.id, c.patient, c.external) for c in cases] == [
        ("lits.volume-0", "LiTS.patient-0", False),
        ("lits.volume-3", "LiTS.patient-3", False),
        ("lits.test-volume-1", "LiTS.test-patient-1", False),
        ("msd.liver_1", "LiTS.patient-0", False),  # volumes 0 and 1 are one patient
        ("hv.hepaticvessel_3", "hv.hepaticvessel_3", True),
        ("own.volume-3", "own.volume-3", False),
    ]
    assert [c.part for c in cases] == ["train", "train", "test", "train", "train", ""]


def test_an_external_set_that_shares_patients_is_refused_by_name_with_the_reason(data):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Several(sources=data, external=["hv", "msd"]).cases()
    assert str(error.value) == (
        "external: patients of the training data\n"
        "  MSD Task03 is no external test set beside LiTS: MSD Task03 is LiTS under another name\n"
        "  sets with liver tumours that would do beside LiTS: MSD Task08, HCC-TACE-Seg, TCIA CRLM"
    )


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("LITS-17", "LiTS itself"),
        ("3Dircadb1", "LiTS volumes 28 to 47 are copies of 3D-IRCADb"),
        ("3D-IRCADb", "LiTS volumes 28 to 47 are copies of 3D-IRCADb"),
        ("Task03_Liver", "MSD Task03 is LiTS under another name"),
        ("AbdomenCT-1K", "AbdomenCT-1K contains LiTS"),
        ("FLARE 2022", "FLARE contains LiTS"),
        ("AbdomenAtlas1.0Mini", "AbdomenAtlas contains LiTS"),
        ("CT-ORG", "many scans of CT-ORG are from LiTS"),
    ],
)
def test_public_sets_with_lits_in_them_are_known_however_they_are_spelt(data, origin, reason):
    other = Folder(root=data["own"]._root, images="*.nii", origin=origin)
    with pytest.raises(ValueError, match=r"^external: patients of the training data") as error:
        Several(sources={"lits": data["lits"], "x": other}, external=["x"]).cases()
    assert str(error.value).splitlines()[1] == f"  {origin} is no external test set beside LiTS: {reason}"


@pytest.mark.parametrize("origin", ["", "HCC-TACE-Seg", "TCIA CRLM", "MSD Task08", "MSD Task07", "CHAOS", "Hospital"])
def test_other_sets_may_be_external(data, origin):
    other = Folder(root=data["own"]._root, images="*.nii", origin=origin)
    assert Several(sources={"lits": data["lits"], "x": other}, external=["x"]).cases()[-1].external


def test_two_relatives_of_lits_share_it(data):
    flare = Folder(root=data["own"]._root, images="*.nii", origin="FLARE22")
    atlas = Folder(root=data["own"]._root, images="*.nii", origin="AbdomenAtlas")
    with pytest.raises(ValueError, match="external") as error:
        Several(sources={"a": flare, "b": atlas}, external=["b"]).cases()
    assert str(error.value).splitlines()[1] == (
        "  AbdomenAtlas is no external test set beside FLARE22: AbdomenAtlas contains LiTS and FLARE contains LiTS"
    )


def test_a_csvs_external_rows_are_compared_too(data, tmp_path):
    (tmp_path / "l.csv").write_text("image,split,origin\na.nii,external,FLARE\n")
    with pytest.raises(ValueError, match="FLARE is no external test set beside LiTS"):
        Several(sources={"lits": data["lits"], "x": Folder(csv=tmp_path / "l.csv")}).cases()


def test_names_that_cannot_be_are_refused(data):
    for sources, external, message in (
        ({"a.b": data["own"]}, [], "sources: 'a.b' begins case ids: want letters, digits and _ - only"),
        (
            data,
            ["hvv"],
            "external: no source 'hvv', did you mean 'hv'? There are: lits, msd, hv, own",
        ),
        ({"own": data["own"]}, ["own"], "want at least one source that is not external, to train on"),
        ({}, None, "want at least one source that is not external, to train on"),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            Several(sources=sources, external=external)
        assert str(error.value) == message


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image, label = rng.integers(-1000, 1000, (12, 11, 6)).astype(np.int16), np.zeros((12, 11, 6), np.uint8)
    label[2:9, 2:9, 1:5], label[4:6, 4:6, 2:4] = 1, 2
    for name, array in ((path, image), (path.with_name(path.name.replace("volume", "segmentation")), label)):
        nib.save(nib.Nifti1Image(array, np.diag([0.8, 0.8, 2.5, 1])), name)


def test_an_experiment_names_several_sources_and_its_store_holds_them_all(tmp_path):
    for i, name in enumerate(("lits/volume-3.nii", "lits/volume-4.nii", "hcc/volume-3.nii")):
        save(tmp_path / name, i)
    sources = {
        "lits": {"name": "lits", "root": str(tmp_path / "lits")},
        "hcc": {
            "name": "folder",
            "root": str(tmp_path / "hcc"),
            "images": "volume-*.nii",
            "labels": "segmentation-*.nii",
        },
    }
    sections = {
        "source": {"name": "several", "sources": sources, "external": ["hcc"]},
        "store": str(tmp_path / "store"),
        "prepare": {"workers": 1},
        "split": {"name": "stratified", "test": 0.0, "val": 0.0},
        "dataset": "slices",
        "model": {"name": "unet", "weights": None},
        "loss": "dice",
        "optimizer": "adamw",
    }
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    experiment = experiments.load(path)
    report = prepare_experiment(experiment)
    assert (report.stored, report.bad) == (["lits.volume-3", "lits.volume-4", "hcc.3"], [])
    store = Store(tmp_path / "store")
    assert [store.info(c).external for c in store.cases] == [True, False, False]
    again = experiments.load(path)
    (tmp_path / "resolved.yaml").write_text(again.resolved())
    assert experiments.load(tmp_path / "resolved.yaml", [f"run={again.run}"]).source == experiment.source
    parts = build(experiment.split, store=store).parts()
    assert parts == {"train": ["lits.volume-3", "lits.volume-4"], "val": [], "test": []}
    with pytest.raises(SourceError) as error:
        prepare_experiment(experiments.load(path, ["source.sources.lits.root=/nowhere"]))
    assert str(error.value).splitlines()[0] == "source 'several': sources.lits: /nowhere: no such folder"
