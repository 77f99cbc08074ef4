import pytest

import registry
from core.errors import UserError
from core.evaluate.pairing import pair_files

registry.discover("plugins")


def make(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def found(pairs):
    return {f.case: (f.pred and f.pred.name, f.ref.name, f.image and f.image.name) for f in pairs.cases}


def test_nnunets_output_pairs_by_equal_names(tmp_path):
    pred = make(tmp_path / "pred", "a.nii.gz", "b.nii.gz", "plans.json", "a.npz", ".hidden.nii.gz")
    ref = make(tmp_path / "labelsTr", "a.nii.gz", "b.nrrd")
    images = make(tmp_path / "imagesTr", "a_0000.nii.gz", "b_0000.nii.gz")
    pairs = pair_files(pred, ref, images)
    assert found(pairs) == {
        "a": ("a.nii.gz", "a.nii.gz", "a_0000.nii.gz"),
        "b": ("b.nii.gz", "b.nrrd", "b_0000.nii.gz"),
    }
    assert (pairs.extra, pairs.problems, pairs.lits) == ([], [], 0)


def test_a_lits_submission_pairs_with_lits_whose_patients_and_faults_are_known(tmp_path):
    pred = make(tmp_path / "pred", *(f"test-segmentation-{n}.nii" for n in (0, 1, 30, 53)))
    batches = ("Training Batch 1/segmentation-0.nii", "Training Batch 2/segmentation-53.nii")
    ref = make(tmp_path / "lits", *batches, "segmentation-1.nii", "segmentation-30.nii", "volume-0.nii")
    pairs = pair_files(pred, ref, ref)
    assert list(found(pairs)) == ["volume-0", "volume-1", "volume-30", "volume-53"]
    assert found(pairs)["volume-0"] == ("test-segmentation-0.nii", "segmentation-0.nii", "volume-0.nii")
    assert found(pairs)["volume-1"][2] is None
    assert [f.patient for f in pairs.cases] == ["patient-0", "patient-0", "patient-30", "patient-53"]
    assert [f.repairs for f in pairs.cases] == [(), (), (), ("label_affine",)]
    assert [f.doubt for f in pairs.cases] == ["", "", "LiTS copied it from 3D-IRCADb without its spacing", ""]
    assert pairs.lits == 4


def test_words_around_a_name_are_left_aside_only_where_names_differ(tmp_path):
    pred = make(tmp_path / "pred", "liver_004.nii.gz", "anna_pred.nii.gz", "seg_x.nii.gz", "seg.nii.gz")
    ref = make(tmp_path / "ref", "segmentation-4.nii", "anna.nii.gz", "seg_x.nii.gz", "x.nii.gz")
    pairs = pair_files(pred, ref)
    assert {case: pred for case, (pred, _, _) in found(pairs).items()} == {
        **{"volume-4": "liver_004.nii.gz", "anna": "anna_pred.nii.gz"},
        **{"seg_x": "seg_x.nii.gz", "x": None},
    }
    assert [path.name for path in pairs.extra] == ["seg.nii.gz"]


def test_names_that_could_pair_twice_are_problems_with_both_files(tmp_path):
    pred = make(tmp_path / "pred", "a.nii.gz", "x_pred.nii.gz", "x_mask.nii.gz", "b.nii", "sub/b.nii.gz")
    ref = make(tmp_path / "ref", "a.nii.gz", "x.nii.gz", "b.nii")
    assert pair_files(pred, ref).problems == [
        f"'b' is there twice: {pred / 'b.nii'} and {pred / 'sub/b.nii.gz'}; take one of them out",
        f"unclear which belongs to which: {ref / 'x.nii.gz'} and {pred / 'x_mask.nii.gz'}, {pred / 'x_pred.nii.gz'}; "
        f"rename them, or take some out",
    ]
    twice = make(tmp_path / "twice", "segmentation-4.nii", "segmentation-04.nii")
    problems = pair_files(make(tmp_path / "p", "segmentation-4.nii"), twice).problems
    assert problems == [
        f"case 'volume-4': two references, {twice / 'segmentation-04.nii'} and {twice / 'segmentation-4.nii'}; "
        f"take one of them out"
    ]


def test_a_wrong_folder_is_one_error(tmp_path):
    ref = make(tmp_path / "ref", "a.nii.gz")
    texts = make(tmp_path / "texts", "readme.txt")
    other = make(tmp_path / "other", "z.nii.gz", "y.nii.gz")
    for pred, said in (
        (tmp_path / "absent", f"{tmp_path / 'absent'}: no such folder"),
        (ref, f"{ref}: predictions and references are the same folder"),
        (texts, f"{texts}: no label file in it (.nii.gz, .nii, .nrrd, .nhdr, .mha, .mhd); it holds readme.txt"),
        (
            other,
            f"no file of {other} pairs with one of {ref}, e.g. y.nii.gz and a.nii.gz\n"
            "  names pair when they are equal, or equal without words around them such as segmentation-, test-, _pred",
        ),
    ):
        with pytest.raises(UserError) as error:
            pair_files(pred, ref)
        assert str(error.value) == said


def test_a_table_names_the_patients_by_case_or_by_file(tmp_path):
    ref = make(tmp_path / "ref", "a.nii.gz", "segmentation-1.nii", "c.nii.gz")
    pred = make(tmp_path / "pred", "a.nii.gz", "segmentation-1.nii", "c.nii.gz")
    table = tmp_path / "patients.csv"
    table.write_text("case;patient\na.nii.gz;p\nvolume-1;p\n")
    pairs = pair_files(pred, ref, patients=table)
    assert [f.patient for f in pairs.cases[:2]] == ["p", "c"]
    assert {f.case: f.patient for f in pairs.cases}["volume-1"] == "p"
    assert pairs.problems == [f"case 'c': {table} does not name its patient; add a row"]
    table.write_text("case;subject\na;p\n")
    with pytest.raises(UserError, match="want a column 'patient'"):
        pair_files(pred, ref, patients=table)


def test_a_link_back_to_the_folder_itself_doubles_no_file(tmp_path):
    pred, ref = make(tmp_path / "pred", "a.nii.gz"), make(tmp_path / "ref", "a.nii.gz")
    (pred / "link_back").symlink_to(pred)
    pairs = pair_files(pred, ref)
    assert (found(pairs), pairs.problems) == ({"a": ("a.nii.gz", "a.nii.gz", None)}, [])
