import csv
import os
import re

import numpy as np
import pytest
from scans import make, run

from core.data import export as exports
from core.data.export import ExportError, export
from core.data.exported import Exported
from core.data.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    cases = [make(folder, "a", 0, part="test"), make(folder, "b", 1), make(folder, "c", 2, labelled=False)]
    assert not run(cases, folder / "store").bad
    return Store(folder / "store")


def test_files_and_index_hold_what_the_store_holds(store, tmp_path):
    out = tmp_path / "out"
    report = export(store, out, lesions=True, workers=1)
    assert report.table() == (f"{out}: 3 cases, 36 slices (3 cases new, 0 unchanged); index.csv lists them")
    with open(out / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["case"], int(r["z"])) for r in rows] == [(c, z) for c in "abc" for z in range(12)]
    for row in rows:
        case, z = row["case"], int(row["z"])
        image = np.load(out / row["image"])
        assert image.dtype == np.int16
        assert np.array_equal(image, store.image(case, [z])[0])
        assert row["patient"] == f"patient {case}"
        assert row["part"] == ("test" if case == "a" else "")
        assert float(row["spacing_z_mm"]) == store.info(case).spacing_mm[0]
        if case == "c":
            assert (row["mask"], row["lesion"], row["liver_voxels"]) == ("", "", "0")
            continue
        mask, lesion = np.load(out / row["mask"]), np.load(out / row["lesion"])
        assert (mask.dtype, lesion.dtype) == (np.uint8, np.uint16)
        assert np.array_equal(mask, store.label(case, [z])[0])
        assert np.array_equal(lesion, store.lesion(case, [z])[0])
        assert int(row["liver_voxels"]) == (mask > 0).sum()
        assert int(row["tumour_voxels"]) == (mask == 2).sum()
        assert row["lesions"].split() == [str(i) for i in np.unique(lesion) if i]
    text = (out / "README.txt").read_text()
    assert "int16 [Y, X], HU" in text
    assert "uint8 [Y, X]: 0 background, 1 liver, 2 tumour" in text


def test_what_is_there_stays_and_a_changed_case_is_written_anew(store, tmp_path):
    out = tmp_path / "out"
    export(store, out, workers=1)
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("*/*.npy")}
    text = (out / "b" / "case.json").read_text()
    (out / "b" / "case.json").write_text(text.replace(store.info("b").content_hash, "of another scan"))
    (out / ".c.1.partial").mkdir()  # left by a killed export
    report = export(store, out, workers=1)
    assert (report.written, report.kept) == (["b"], ["a", "c"])
    assert not list(out.glob(".*"))
    changed = {p.parent.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert changed == {"b"}


def test_a_case_is_there_whole_or_not_at_all(store, tmp_path, monkeypatch):
    out, saved = tmp_path / "out", []

    def full(path, array):
        if len(saved) == 30:
            raise OSError(28, "No space left on device")
        saved.append(path)
        np.save(path, array)

    monkeypatch.setattr(exports, "_save", full)
    with pytest.raises(ExportError) as error:
        export(store, out, workers=1)
    assert str(error.value) == (
        f"{out}: [Errno 28] No space left on device; mend that and run again, it goes on from here"
    )
    assert sorted(p.name for p in out.iterdir() if p.is_dir() and not p.name.startswith(".")) == ["a"]
    monkeypatch.undo()
    assert export(store, out, workers=1).kept == ["a"]


def test_a_window_gives_floats_from_0_to_1(store, tmp_path):
    out = tmp_path / "out"
    export(store, out, window=(-100, 300), workers=1)
    image = np.load(out / "a" / "image_0004.npy")
    assert image.dtype == np.float32
    wanted = (np.clip(store.image("a", [4])[0], -100, 300) + 100) / 400
    assert image == pytest.approx(wanted, abs=1e-6)
    assert "float32 [Y, X], HU from -100 to 300 as 0 to 1" in (out / "README.txt").read_text()
    with pytest.raises(ValueError, match="exported with --window, but samples are in HU"):
        Exported(out).info("a")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        ("foreign", "holds something that is no export; name an empty folder or a new one with --out"),
        ("file", "a file; --out wants a folder"),
        ("settings", "was exported with other settings (window None, lesions false); name another folder with --out"),
        ("gone", "holds case 'zz', which is not in the store {store}; name another folder with --out"),
        ("window", "--window: low must be below high, got 5 -5"),
    ],
)
def test_nothing_of_others_is_overwritten(store, tmp_path, spoil, text):
    out, more = tmp_path / "out", {}
    if spoil == "foreign":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    elif spoil == "file":
        out.write_text("mine")
    elif spoil == "window":
        more["window"] = (5, -5)
    else:
        export(store, out, workers=1)
        if spoil == "gone":
            os.rename(out / "a", out / "zz")
        else:
            more["lesions"] = True
    with pytest.raises(ExportError) as error:
        export(store, out, workers=1, **more)
    where = "" if spoil == "window" else f"{out}: "
    assert str(error.value) == where + text.format(store=store.root)


def test_an_export_is_read_by_the_names_of_a_store(store, tmp_path):
    out = tmp_path / "out"
    export(store, out, lesions=True, workers=1)
    found = Exported(out)
    assert found.cases == store.cases
    for case in store.cases:
        assert found.info(case) == store.info(case)
        assert np.array_equal(found.image(case), store.image(case))
        assert np.array_equal(found.slices(case), store.slices(case))
        assert found.slice_lesions(case) == store.slice_lesions(case)
        np.testing.assert_equal(found.lesions(case), store.lesions(case))
    assert np.array_equal(found.lesion("a", [5, 4]), store.lesion("a", [5, 4]))
    text = (
        f"{out}: case 'aa' is not in this export, did you mean 'a'? "
        f"Run tools/prepare.py EXPERIMENT --export npy --out {out}"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        found.info("aa")
    with pytest.raises(ValueError, match=f"^{tmp_path}: no export here; write one with tools/prepare.py EXP"):
        Exported(tmp_path)
    lines = (out / "index.csv").read_text().splitlines()
    (out / "index.csv").write_text("\n".join(lines[:5] + lines[6:]))
    with pytest.raises(ValueError, match=re.escape(f"{out}/index.csv: 11 rows of case 'a', which has 12 slices")):
        Exported(out).info("a")
