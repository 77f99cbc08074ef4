import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.contracts import Case
from core.data.prepare import SourceError, is_complete, prepare
from core.data.store import Store, StoreError
from core.data.tables import find_lesions, lesion_table

ROOT = Path(__file__).resolve().parents[3]
AFFINE = np.diag([-0.7, -0.8, 2.5, 1.0])


class Listed:
    def __init__(self, cases):
        self._cases = cases

    def cases(self):
        return self._cases


def scan(seed=0, shape=(24, 20, 9)):
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def mask(shape=(24, 20, 9)):
    label = np.zeros(shape, np.uint8)
    label[4:18, 4:16, 1:8] = 1
    label[6:9, 6:9, 2:4] = 2
    return label


def make(folder, name, image=None, label=None, affine=AFFINE, label_affine=None, **said):
    paths = folder / f"{name}.nii.gz", folder / f"{name}-label.nii.gz"
    image = scan(abs(hash(name)) % 1000) if image is None else image
    nib.save(nib.Nifti1Image(image, affine), paths[0])
    nib.save(
        nib.Nifti1Image(
            mask(image.shape) if label is None else label, affine if label_affine is None else label_affine
        ),
        paths[1],
    )
    return Case(name, f"patient {name}", *paths, **said)


def run(cases, root, workers=1, **more):
    return prepare(Listed(cases), root, workers=workers, source_config={"name": "test"}, **more)


def cut(path, share=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


def test_each_bad_case_is_named_and_the_rest_goes_on(tmp_path):
    nan = scan(1).astype(np.float32)
    nan[0, 0, 0] = np.nan
    strange = mask()
    strange[0, 0, 0] = 3
    moved = AFFINE.copy()
    moved[2, 3] = 4
    first = make(tmp_path, "a-good", image=scan(50))
    cases = [
        first,
        make(tmp_path, "b-nan", image=nan),
        make(tmp_path, "c-labels", label=strange),
        make(tmp_path, "d-shape", label=mask((24, 20, 8))),
        make(tmp_path, "e-affine", label_affine=moved),
        make(tmp_path, "f-copy", image=scan(50)),
        make(tmp_path, "g-cut", image=scan(7, (60, 60, 9))),
        make(tmp_path, "h-no-scan"),
        make(tmp_path, "i-no-label"),
        make(tmp_path, "j-normalised", image=np.random.default_rng(0).random((24, 20, 9)).astype(np.float32)),
        make(tmp_path, "k-twice", image=scan(8)),
        make(tmp_path, "l-good", image=scan(51)),
    ]
    cut(cases[6].image)
    cases[7].image.unlink()
    cases[8].label.unlink()
    cases.insert(11, Case("k-twice", "p", tmp_path / "other" / "k.nii"))
    report = run(cases, tmp_path / "store", workers=2)
    assert report.stored == ["a-good", "l-good"]
    assert Store(tmp_path / "store").cases == ("a-good", "l-good")
    t = tmp_path
    messages = {case: message for case, _, message in report.bad}
    reason = messages.pop("g-cut")
    assert reason.startswith(f"{t}/g-cut.nii.gz: unreadable or cut short (")
    assert messages == {
        "b-nan": f"{t}/b-nan.nii.gz: 1 of 4320 voxels are not finite (NaN or infinite)",
        "c-labels": (
            f"{t}/c-labels-label.nii.gz: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds 3"
        ),
        "d-shape": (
            f"{t}/d-shape-label.nii.gz: shape (8, 20, 24) [Z,Y,X], the scan has (9, 20, 24) ({t}/d-shape.nii.gz)"
        ),
        "e-affine": (
            f"{t}/e-affine-label.nii.gz: its affine differs from the scan's by up to 4 (allowed: 0.001) "
            f"({t}/e-affine.nii.gz)"
        ),
        "f-copy": f"{t}/f-copy.nii.gz: the same scan as a-good ({t}/a-good.nii.gz)",
        "h-no-scan": f"{t}/h-no-scan.nii.gz: the scan is missing; its label is there: {t}/h-no-scan-label.nii.gz",
        "i-no-label": f"{t}/i-no-label-label.nii.gz: the label is missing; its scan is there: {t}/i-no-label.nii.gz",
        "j-normalised": f"{t}/j-normalised.nii.gz: all intensities lie within [0, 1]: normalised or empty, not HU",
        "k-twice": f"{t}/k-twice.nii.gz: found more than once; keep one of {t}/k-twice.nii.gz, {t}/other/k.nii",
    }
    assert dict((c, p) for c, p, _ in report.bad)["d-shape"] == f"{t}/d-shape-label.nii.gz"
    table = report.table()
    assert "2 cases (2 new, 0 unchanged)" in table
    assert "10 bad cases, not in the store:" in table
    assert all(message in table for message in messages.values())
    summary = json.loads((tmp_path / "store" / "store.json").read_text())
    assert {b["case"] for b in summary["bad"]} == {*messages, "g-cut"}
    assert not list((tmp_path / "store").glob(".*partial"))


def test_label_affine_is_mended_only_where_the_case_is_known_and_that_is_said(tmp_path):
    image, label = scan(), mask()
    said = make(tmp_path, "known", image, label, label_affine=np.eye(4), repairs=("label_affine",))
    report = run([said], tmp_path / "store")
    assert report.bad == []
    assert ("known", "repaired: the label's affine, replaced by the scan's") in report.notes
    store = Store(tmp_path / "store")
    assert store.info("known").repairs == ("the label's affine, replaced by the scan's",)
    assert np.array_equal(store.label("known"), label.T)  # the scan's axes are LPS
    other = make(tmp_path, "unknown", scan(3), label, label_affine=np.eye(4))
    assert [case for case, _, _ in run([said, other], tmp_path / "store").bad] == ["unknown"]


def test_label_in_another_orientation_on_the_same_grid_is_fine(tmp_path):
    image, label = scan(), mask()
    label[0, 0, 0] = 2
    turned = nib.as_closest_canonical(nib.Nifti1Image(label, AFFINE))
    case = make(tmp_path, "a", image, np.asanyarray(turned.dataobj), label_affine=turned.affine)
    assert run([case], tmp_path / "store").bad == []
    assert np.array_equal(Store(tmp_path / "store").label("a"), label.T)


def test_what_cannot_be_trusted_is_recorded_and_remarked(tmp_path):
    cases = [
        make(tmp_path, "identity", scan(1), affine=np.eye(4)),
        make(tmp_path, "windowed", scan(2).clip(-160, 240)),
        make(tmp_path, "empty", scan(3), np.zeros((24, 20, 9), np.uint8)),
        make(tmp_path, "told", scan(4), spacing_trusted=False, hu_trusted=False),
        make(tmp_path, "fine", scan(5)),
    ]
    report = run(cases, tmp_path / "store")
    assert report.notes == [
        ("identity", "the affine is the identity (1 mm, no origin): spacing and orientation cannot be trusted"),
        ("windowed", "intensities lie within [-160, 240]: windowed before, so HU cannot be trusted"),
        ("empty", "the label is empty: no liver"),
        ("told", "the source says that the spacing cannot be trusted"),
    ]
    store = Store(tmp_path / "store")
    trust = {c: (store.info(c).spacing_trusted, store.info(c).hu_trusted) for c in store.cases}
    assert trust == {
        "identity": (False, True),
        "windowed": (True, False),
        "empty": (True, True),
        "told": (False, False),
        "fine": (True, True),
    }
    assert np.isnan(store.lesions("identity")["volume_ml"]).all()
    assert np.isfinite(store.lesions("fine")["diameter_mm"]).all()
    assert run(cases, tmp_path / "store").notes == report.notes  # also when all is unchanged


def test_unchanged_cases_are_skipped_and_changed_ones_written_anew(tmp_path):
    cases = [make(tmp_path, "a", scan(1)), make(tmp_path, "b", scan(2))]
    root = tmp_path / "store"
    assert run(cases, root).stored == ["a", "b"]
    before = {p.name: p.stat().st_mtime_ns for p in root.glob("*.h5")}
    report = run(cases, root)
    assert (report.stored, report.skipped) == ([], ["a", "b"])
    assert {p.name: p.stat().st_mtime_ns for p in root.glob("*.h5")} == before
    cases[1] = make(tmp_path, "b", scan(3))
    report = run(cases, root)
    assert (report.stored, report.skipped) == (["b"], ["a"])
    assert np.array_equal(Store(root).image("b"), scan(3).T)
    assert run(cases, root, compression="none").stored == ["a", "b"]
    cases[0] = Case("a", "another patient", cases[0].image, cases[0].label)
    assert run(cases, root, compression="none").updated == ["a"]
    assert Store(root).info("a").patient == "another patient"


def test_what_the_source_no_longer_has_leaves_the_store(tmp_path):
    cases = [make(tmp_path, "a", scan(1)), make(tmp_path, "b", scan(2)), make(tmp_path, "c", scan(3))]
    root = tmp_path / "store"
    run(cases, root)
    cut(cases[2].image)
    report = run([cases[0], cases[2]], root)
    assert report.removed == ["b"]
    assert Store(root).cases == ("a",)
    assert f"no longer in the source, set aside in {root / 'removed'}: b" in report.table()
    assert (root / "removed" / "b.h5").is_file()


def test_store_of_another_source_is_refused(tmp_path):
    run([make(tmp_path, "a")], tmp_path / "store")
    with pytest.raises(StoreError) as error:
        prepare(Listed([]), tmp_path / "store", source_config={"name": "other"})
    assert str(error.value) == (
        f"{tmp_path}/store: this store was prepared from source 'test', not 'other'; "
        f"name another with store=data/other, or delete the folder"
    )


def test_what_a_source_says_reaches_the_user(tmp_path):
    class Nothing:
        def cases(self):
            raise ValueError("nothing here")

    with pytest.raises(SourceError, match=r"^source 'test': nothing here$"):
        prepare(Nothing(), tmp_path / "store", source_config={"name": "test"})


def test_id_that_cannot_name_a_file_is_refused(tmp_path):
    with pytest.raises(StoreError) as error:
        run([Case("../a", "p", tmp_path / "a.nii")], tmp_path / "store")
    assert str(error.value) == "case id '../a': want letters, digits and . _ + - only, since it names a file"


def test_unexpected_error_is_reported_with_its_type(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("core.data.ingest.lesion_table", fail)
    case = make(tmp_path, "a")
    assert run([case], tmp_path / "store").bad == [("a", str(case.image), f"{case.image}: ZeroDivisionError: oh")]
    assert not is_complete(tmp_path / "store")


def test_full_disk_stops_with_what_to_do(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.data.ingest._write", full)
    with pytest.raises(StoreError, match=r"the disk is full .*; make room and run again, it goes on from here"):
        run([make(tmp_path, "a")], tmp_path / "store")


def test_kill_leaves_nothing_half_written_and_the_next_run_goes_on(tmp_path):
    cases = [make(tmp_path, f"c-{i}", scan(i, (96, 96, 60))) for i in range(12)]
    root = tmp_path / "store"
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from core.contracts import Case
from core.data.prepare import prepare
class Source:
    def cases(self):
        t = Path({str(tmp_path)!r})
        names = [f"c-{{i}}" for i in range(12)]
        return [Case(n, f"patient {{n}}", t / f"{{n}}.nii.gz", t / f"{{n}}-label.nii.gz") for n in names]
prepare(Source(), Path({str(root)!r}), workers=1, source_config={{"name": "test"}})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while len(list(root.glob("*.h5"))) < 3:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = [p.name[:-3] for p in root.glob("*.h5")]
    assert 3 <= len(there) < 12
    assert not is_complete(root)
    for case in Store(root).cases:  # whole, all of them
        assert Store(root).image(case).shape == (60, 96, 96)
    (root / ".c-5.h5.1.partial").write_bytes(b"left by a killed process")
    report = run(cases, root)
    assert sorted(report.skipped) == sorted(there)
    assert len(report.stored) == 12 - len(there)
    assert is_complete(root)
    assert not list(root.glob(".*partial"))


def _prepare_here(arguments):
    cases, root = arguments
    report = run(cases, root)
    return report.stored, report.skipped


def test_processes_that_prepare_at_once_do_the_work_once(tmp_path):
    cases = [make(tmp_path, f"c-{i}", scan(i)) for i in range(4)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.map(_prepare_here, [(cases, tmp_path / "store")] * 3, chunksize=1)
    assert sum(len(stored) for stored, _ in results) == 4
    assert all(len(stored) + len(skipped) == 4 for stored, skipped in results)


def test_contrast_is_taken_against_the_liver_2_to_10_mm_away():
    label = np.zeros((11, 60, 60), np.uint8)
    image = np.full(label.shape, -100, np.int16)
    label[:, 5:55, 5:55] = 1
    image[label == 1] = 110
    z, y, x = np.ogrid[:11, :60, :60]
    near = (np.abs(z - 5) * 2.0) ** 2 + (y - 30) ** 2 + (x - 30) ** 2
    image[near <= 6] = 300  # a rim closer than 2 mm must not count
    lesion = near <= 4
    label[lesion], image[lesion] = 2, 60
    image[near > 13**2] = 900  # nor must what is more than 10 mm away
    other = (np.abs(z - 5) < 2) & (np.abs(y - 30) < 2) & (np.abs(x - 38) < 2)
    label[other], image[other] = 2, -500  # nor another lesion
    found = find_lesions(label)
    table = lesion_table(image, label, found, (2.0, 1.0, 1.0), True)
    mine = table[found.ids[5 - found.box[0].start, 30 - found.box[1].start, 30 - found.box[2].start] - 1]
    assert found.count == 2
    assert mine["contrast_hu"] == pytest.approx(60 - 110)


def test_contrast_of_a_lesion_without_parenchyma_is_not_a_number():
    label = np.zeros((5, 20, 20), np.uint8)
    label[2, 8:12, 8:12] = 2
    table = lesion_table(label.astype(np.int16), label, find_lesions(label), (1, 1, 1), True)
    assert np.isnan(table["contrast_hu"]).tolist() == [True]


def test_contrast_of_a_huge_lesion_is_thinned_out_but_agrees(monkeypatch):
    label = np.zeros((12, 80, 80), np.uint8)
    label[1:11, 2:78, 2:78] = 1
    label[3:9, 20:60, 20:60] = 2
    image = np.random.default_rng(0).normal(110, 5, label.shape)
    image[label == 2] -= 50
    image = np.rint(image).astype(np.int16)
    whole = lesion_table(image, label, find_lesions(label), (2, 1, 1), True)["contrast_hu"][0]
    monkeypatch.setattr("core.data.tables._CONTRAST_VOXELS", 5000)
    thin = lesion_table(image, label, find_lesions(label), (2, 1, 1), True)["contrast_hu"][0]
    assert whole == pytest.approx(-50, abs=0.5)
    assert thin == pytest.approx(whole, abs=0.5)
    assert thin != whole


def test_lesions_touch_by_corners_too():
    label = np.zeros((3, 3, 6), np.uint8)
    label[0, 0, 0] = label[1, 1, 1] = label[2, 2, 5] = 2
    assert find_lesions(label).count == 2
    assert find_lesions(np.ones((3, 3, 3), np.uint8)).count == 0


def test_memory_stays_under_three_times_the_int16_scan(tmp_path):
    """At 512x512x600 measured apart (docs/data.md); here smaller, so that the interpreter's own share is left out."""
    shape = (512, 512, 120)
    label = np.zeros(shape, np.uint8)
    label[100:260, 150:350, 20:100] = 1
    label[150:170, 200:230, 40:60] = 2
    image = np.random.default_rng(0).integers(-1000, 1000, (512, 512, 1)).astype(np.int16)
    make(tmp_path, "a", np.broadcast_to(image, shape), label)
    code = f"""
import re, sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from core.contracts import Case
from core.data.ingest import Job, ingest
def peak():  # ru_maxrss would be the starting process's, if that was larger
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
t = Path({str(tmp_path)!r})
before = peak()
ingest(Job(Case("a", "a", t / "a.nii.gz", t / "a-label.nii.gz"), t / "out.h5", "bitshuffle-lz4", ""))
print((peak() - before) / (2 * 512 * 512 * 120))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 3
