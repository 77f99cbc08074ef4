import dataclasses
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_run import call, forgotten, make_run, scan, start, write_scan

from core.data.volume import read_image, to_native
from core.errors import UserError
from core.infer.run import load_run
from core.train import checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with forgotten():
        yield make_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_label_maps_lie_on_the_scans_own_grid(run, made, tmp_path, capsys):
    assert call("predict", run, made.parent / "scans", "-o", tmp_path / "out") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"volume-{n}.nii.gz" for n in range(11, 16)]
    image, out = nib.load(made.parent / "scans" / "volume-12.nii.gz"), nib.load(tmp_path / "out" / "volume-12.nii.gz")
    assert out.shape == image.shape
    assert np.array_equal(out.affine, image.affine)
    assert out.header["xyzt_units"] == image.header["xyzt_units"]
    for code in ("qform_code", "sform_code"):
        assert out.header[code] == image.header[code]
    assert out.get_data_dtype() == np.uint8
    labels = np.asanyarray(out.dataobj)
    assert (labels == scan(12)[1]).mean() > 0.95
    assert set(np.unique(labels)) == {0, 1, 2}
    assert "5 label maps written to" in capsys.readouterr().out


def test_any_orientation_comes_back_as_it_came(run, made, tmp_path):
    image = nib.load(made.parent / "scans" / "volume-12.nii.gz")
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("S", "R", "A"), (("L", "R"), ("P", "A"), ("I", "S"))))
    nib.save(turned, tmp_path / "turned.nii")
    call("predict", run, tmp_path / "turned.nii", made.parent / "scans" / "volume-12.nii.gz", "-o", tmp_path / "out")
    plain, back = (nib.load(tmp_path / "out" / f"{name}.nii.gz") for name in ("volume-12", "turned"))
    assert back.shape == turned.shape
    assert np.array_equal(back.affine, turned.affine)
    same = nib.as_closest_canonical(back).get_fdata() == nib.as_closest_canonical(plain).get_fdata()
    assert same.all()


def test_a_bad_file_is_reported_and_the_rest_goes_on(run, tmp_path, capsys):
    folder = tmp_path / "in"
    for number in (21, 22, 23):
        write_scan(folder, number)
    whole = (folder / "volume-22.nii.gz").read_bytes()
    (folder / "volume-22.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no scan")
    absent = tmp_path / "absent.nii"
    assert call("predict", run, folder, absent, "-o", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "2 label maps written to" in printed.out
    assert f"2 of 4 failed:\n  {folder / 'volume-22.nii.gz'}: unreadable or cut short" in printed.err
    assert f"  {absent}: no such file\n" in printed.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["volume-21.nii.gz", "volume-23.nii.gz"]


def test_what_is_there_is_left_alone_unless_told(run, made, tmp_path, capsys):
    scans, out = made.parent / "scans", tmp_path / "out"
    out.mkdir()
    (out / "volume-11.nii.gz").write_text("mine")
    assert call("predict", run, scans, "-o", out) == 0
    assert f"1 of 5 already in {out}, left as they are (--overwrite predicts them again)" in capsys.readouterr().out
    assert (out / "volume-11.nii.gz").read_text() == "mine"
    assert call("predict", run, scans / "volume-11.nii.gz", "-o", out, "--overwrite") == 0
    assert nib.load(out / "volume-11.nii.gz").shape == (40, 32, 6)


def test_overrides_may_stand_among_the_inputs(run, made, tmp_path):
    scan_file = made.parent / "scans" / "volume-11.nii.gz"
    call("predict", run, scan_file, "postprocess=[{name: largest_component}]", "-o", tmp_path / "one")
    call("predict", run, scan_file, "-o", tmp_path / "all")
    one, both = (np.asanyarray(nib.load(tmp_path / f / "volume-11.nii.gz").dataobj) for f in ("one", "all"))
    assert 0 < (one > 0).sum() < (both > 0).sum()


def test_label_maps_never_land_among_the_scans(run, tmp_path):
    write_scan(tmp_path / "in", 21)
    before = (tmp_path / "in" / "volume-21.nii.gz").read_bytes()
    file = tmp_path / "in" / "volume-21.nii.gz"
    with pytest.raises(UserError) as error:
        call("predict", run, file, "-o", tmp_path / "in", "--overwrite")
    assert str(error.value) == (
        f"-o {tmp_path / 'in'} is the folder of {file}: label maps must not land among the scans; name another"
    )
    assert file.read_bytes() == before


def test_inputs_that_make_no_sense_are_refused(run, made, tmp_path):
    scans = made.parent / "scans"
    shutil.copytree(scans, tmp_path / "b")
    (tmp_path / "empty").mkdir()
    one, two = scans / "volume-11.nii.gz", tmp_path / "b" / "volume-11.nii.gz"
    out = tmp_path / "out"
    for inputs, target, message in (
        (
            [one, two],
            out,
            f"{one} and {two} would both be written to {out / 'volume-11.nii.gz'}; predict them into two",
        ),
        ([tmp_path / "empty"], out, f"{tmp_path / 'empty'}: no scan (*.nii, *.nii.gz, *.nrrd, *.nhdr, *.mha, "),
        ([one], tmp_path / "a.nii.gz", f"-o {tmp_path / 'a.nii.gz'}: want a folder; each label map is named after its"),
    ):
        with pytest.raises(UserError) as error:
            call("predict", run, *inputs, "-o", target)
        assert str(error.value).startswith(message)
    assert not out.exists()


def test_it_runs_as_a_user_runs_it(run, made, tmp_path):
    done = start("predict", "run", made.parent / "scans" / "volume-11.nii.gz", "-o", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 label map written to out (0 background, 1 liver, 2 tumour)\n"
    done = start("predict", "absent", made.parent / "scans" / "volume-12.nii.gz", "-o", "out", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "no such run directory: absent\n  there are in .: run\n"


def test_a_run_predicts_without_its_store_and_without_downloads(run, made, tmp_path):
    volume = read_image(made.parent / "scans" / "volume-13.nii.gz")
    loaded = load_run(run, overrides=[f"store={tmp_path / 'gone'}"])
    assert loaded.experiment.model.args["weights"] == "imagenet"  # the model would raise, were they asked for
    assert (loaded.step, loaded.averaged, loaded.checkpoint.name, loaded.note) == (7, False, "best.pt", "")
    out = loaded.predict(volume)
    assert (to_native(out.labels, volume.native) == scan(13)[1]).mean() > 0.95
    assert out.probabilities is None
    assert loaded.predict(volume, probabilities=True).probabilities.shape == (3, *volume.array.shape)


def test_postprocessors_that_ask_for_probabilities_get_them(run, made):
    volume = read_image(made.parent / "scans" / "volume-13.nii.gz")

    def sure(labels, spacing_mm, probabilities):
        return np.where(probabilities[0] < 0.5, labels, 0).astype(np.uint8)

    loaded = dataclasses.replace(load_run(run), postprocess=[sure])
    out = loaded.predict(volume)
    assert out.probabilities is None
    assert out.labels.any()


def test_averaged_weights_are_used_where_the_run_keeps_them(run, made):
    state = checkpoint.load(run / "checkpoints" / "best.pt")
    broken = {key: torch.full_like(value, float("nan")) for key, value in state["network"].items()}
    checkpoint.save(run, {"network": broken, "ema": state["network"], "step": 9}, keep=2, best=True)
    loaded = load_run(run)
    assert (loaded.averaged, loaded.step) == (True, 9)
    assert loaded.predict(read_image(made.parent / "scans" / "volume-13.nii.gz")).labels.any()


def test_checkpoints_by_name(run):
    state = checkpoint.load(run / "checkpoints" / "best.pt")
    checkpoint.save(run, {**state, "step": 9}, keep=2, best=False)
    assert load_run(run).step == 7
    assert load_run(run, "last").step == 9
    assert load_run(run, "step_00000007.pt").step == 7
    assert load_run(run, run / "checkpoints" / "step_00000009.pt").step == 9
    (run / "checkpoints" / "best.pt").unlink()
    loaded = load_run(run)
    assert loaded.step == 9
    assert loaded.note == f"{run} has no best checkpoint (nothing was validated), using step_00000009.pt"
    with pytest.raises(UserError) as error:
        load_run(run, "bst")
    assert str(error.value) == f"{run}: no checkpoint 'bst'\n  there are: step_00000007.pt, step_00000009.pt"
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError) as error:
        load_run(run)
    assert str(error.value) == f"{run}: no checkpoint 'best'\n  there are: none; has training saved one yet?"


def test_a_checkpoint_of_another_model_is_refused(run):
    with pytest.raises(UserError) as error:
        load_run(run, overrides=["model.width=4"])
    assert str(error.value) == (
        f"{run / 'checkpoints' / 'best.pt'}: a checkpoint of another model than the experiment's\n"
        "  model.gain: [1] in the checkpoint, [4] in the model\n"
        "  the experiment's model: tiny_threshold (width=4)"
    )


def test_a_cut_checkpoint_is_refused(run):
    path = run / "checkpoints" / "best.pt"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"best\.pt: not a readable checkpoint"):
        load_run(run)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, so asking for one is no error")
def test_a_device_that_is_not_there_is_an_error(run):
    with pytest.raises(UserError) as error:
        load_run(run, device="cuda")
    assert str(error.value) == "device cuda: there is no CUDA device here; leave --device out, or use --device cpu"


def test_real_ct_comes_back_on_its_own_grid(run, tmp_path):
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "chaos_ct3" / "ct.nii.gz"
    if not path.is_file():
        pytest.skip(f"no real CT at {path}")
    assert call("predict", run, path, "-o", tmp_path / "out") == 0
    image, out = nib.load(path), nib.load(tmp_path / "out" / "ct.nii.gz")
    assert out.shape == image.shape
    assert np.array_equal(out.affine, image.affine)
    assert out.header["xyzt_units"] == image.header["xyzt_units"]
    # The tiny model is a threshold on HU, so every voxel of the answer is known: nothing was flipped or shifted.
    hu, labels = np.asanyarray(image.dataobj), np.asanyarray(out.dataobj)
    assert (labels[(hu > 80) & (hu < 170)] == 1).all()
    assert (labels[(hu > 30) & (hu < 70)] == 2).all()
    assert (labels[(hu < -30) | (hu > 180)] == 0).all()
