"""A store over time: cases added, taken out, brought back; what the source says changes; schemas too."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from scans import make, run, to_schema_1

from core.data import summary
from core.data.manage import remove, restore
from core.data.migrate import migrate
from core.data.prepare import SourceError, is_complete
from core.data.store import Store, StoreError
from core.data.verify import verify


@pytest.fixture
def cases(tmp_path):
    return [make(tmp_path, name, i) for i, name in enumerate("abc")]


def test_only_stores_these_and_leaves_the_others_alone(tmp_path, cases):
    root = tmp_path / "store"
    report = run(cases, root, only=["b"])
    assert (report.stored, report.table()) == (["b"], f"store {root}: 1 cases (1 new, 0 unchanged)")
    assert is_complete(root)
    report = run([cases[0]], root, only=["a"])  # the source no longer has b, and yet it stays
    assert report.table() == f"store {root}: 2 cases (1 new, 1 unchanged)"
    assert Store(root).cases == ("a", "b")
    with pytest.raises(SourceError, match=r"^source 'test': no case 'z'"):
        run(cases, root, only=["z"])
    copy = dataclasses.replace(cases[2], image=cases[0].image)
    assert run([copy], root, only=["c"]).bad[0][2] == f"{copy.image}: the same scan as a ({cases[0].image})"
    assert Store(root).cases == ("a", "b")
    assert run(cases, root).stored == ["c"]


def test_a_case_that_became_bad_leaves_the_store_also_when_it_is_refreshed_alone(tmp_path, cases):
    root = tmp_path / "store"
    run(cases, root)
    cases[1].image.write_bytes(cases[1].image.read_bytes()[:500])
    report = run(cases, root, only=["b"])
    assert [case for case, _, _ in report.bad] == ["b"]
    assert Store(root).cases == ("a", "c")
    assert (root / "removed" / "b.h5").is_file()


def test_a_full_disk_is_said_also_where_only_words_change(tmp_path, cases, monkeypatch):
    root = tmp_path / "store"
    run(cases, root)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.data.prepare.shutil.copyfile", full)
    cases[1] = dataclasses.replace(cases[1], patient="another")
    with pytest.raises(StoreError, match=r"the disk is full .*; make room and run again, it goes on from here"):
        run(cases, root)
    assert Store(root).info("b").patient == "patient b"


def test_a_killed_prepare_is_not_made_complete_by_only(tmp_path, cases):
    root = tmp_path / "store"
    run(cases[:1], root)
    summary.write(root, {**summary.read(root), "complete": False})
    run(cases, root, only=["b"])
    assert not is_complete(root)
    run(cases, root)
    assert is_complete(root)


def test_removed_cases_stay_out_until_they_are_restored(tmp_path, cases):
    root = tmp_path / "store"
    run(cases, root)
    assert remove(root, ["b"]) == (
        f"store {root}: 2 cases; out of it: b\n"
        f"  set aside: {root}/removed/b.h5\n"
        f"  later prepares leave them out; --restore brings them back"
    )
    report = run(cases, root)
    assert (report.stored, report.skipped, report.excluded, report.removed) == ([], ["a", "c"], ["b"], [])
    assert report.table().splitlines()[1] == "left out since --remove (--restore brings them back): b"
    assert is_complete(root)
    with pytest.raises(StoreError) as error:
        run(cases, root, only=["b"])
    assert str(error.value) == f"{root}: taken out by --remove: b; --restore brings a case back"
    with pytest.raises(StoreError) as error:
        remove(root, ["a", "b"])
    assert str(error.value) == f"{root}: case 'b' is out already"
    assert Store(root).cases == ("a", "c")
    assert restore(root, ["b"]) == (
        f"store {root}: 3 cases\n  b: back, as it was; the next prepare sees whether its scan has changed"
    )
    report = run(cases, root)
    assert (report.skipped, report.excluded) == (["a", "b", "c"], [])
    with pytest.raises(StoreError) as error:
        restore(root, ["b"])
    assert str(error.value) == f"{root}: case 'b' was not taken out; out are: none"
    with pytest.raises(StoreError, match=r"no case 'bb', did you mean 'b'\?"):
        remove(root, ["bb"])


def test_what_is_set_aside_twice_is_kept_twice(tmp_path, cases):
    root = tmp_path / "store"
    run(cases, root)
    first = (root / "b.h5").read_bytes()
    remove(root, ["b"])
    summary.write(root, {**summary.read(root), "excluded": []})
    cases[1] = make(tmp_path, "b", 77)
    run(cases, root)
    remove(root, ["b"])
    assert sorted(p.name for p in (root / "removed").iterdir()) == ["b.h5", "b.h5.2"]
    assert (root / "removed" / "b.h5").read_bytes() == first
    restore(root, ["b"])  # the latest
    assert run(cases, root).skipped == ["a", "b", "c"]


def test_a_restored_case_without_its_file_is_stored_by_the_next_prepare(tmp_path, cases):
    root = tmp_path / "store"
    run(cases, root)
    remove(root, ["b"])
    (root / "removed" / "b.h5").unlink()
    assert restore(root, ["b"]).endswith("\n  b: no file is set aside; the next prepare stores it")
    assert run(cases, root).stored == ["b"]


def test_what_the_source_says_is_brought_up_to_date_without_reading_the_scan(tmp_path, cases, monkeypatch):
    root = tmp_path / "store"
    run(cases, root)
    before = Store(root).image("b")

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr("core.data.prepare.ingest", never)
    cases[1] = dataclasses.replace(cases[1], patient="another", part="test", external=True)
    report = run(cases, root)
    assert (report.stored, report.updated, report.skipped) == ([], ["b"], ["a", "c"])
    assert report.table() == (
        f"store {root}: 3 cases (0 new, 3 unchanged)\nbrought up to date with what the source says: b"
    )
    info = Store(root).info("b")
    assert (info.patient, info.part, info.external) == ("another", "test", True)
    assert np.array_equal(Store(root).image("b"), before)
    assert verify(root, workers=1).problems == []


def test_a_store_of_another_grid_is_refused_with_both(tmp_path, cases):
    root = tmp_path / "store"
    run(cases, root, spacing=(None, 1.2, 1.2), crop="body")
    with pytest.raises(StoreError) as error:
        run(cases, root)
    assert str(error.value) == (
        f"{root}: this store was prepared with spacing [null, 1.2, 1.2], crop body, margin_mm 20; the experiment's "
        f"prepare: says spacing null, crop none. Give it a store of its own with store=..., or delete the folder"
    )
    assert run(cases, root, spacing=(None, 1.2, 1.2), crop="body").skipped == ["a", "b", "c"]


def old_store(tmp_path, cases):
    root = tmp_path / "store"
    run(cases, root)
    for case in "abc":
        to_schema_1(root / f"{case}.h5")
    summary.write(root, {"schema": 1, "source": {"name": "test"}, "origin": ["test"], "cases": 3, "bad": []})
    return root


def test_an_older_store_says_what_opening_it_needs(tmp_path, cases):
    root = old_store(tmp_path, cases)
    with pytest.raises(StoreError) as error:
        Store(root)
    assert str(error.value) == (
        f"{root}/a.h5: store schema 1, this version reads 2; tools/prepare.py EXPERIMENT --migrate brings the store to "
        f"it from its own arrays, without the raw scans"
    )
    assert not is_complete(root)
    with pytest.raises(StoreError, match=r"a\.h5: store schema 1, this version reads 2; tools/prepare\.py"):
        verify(root)


def test_an_older_store_is_brought_over_from_its_own_arrays(tmp_path, cases):
    fresh = tmp_path / "fresh"
    run(cases, fresh)
    root = old_store(tmp_path, cases)
    for case in cases:
        case.image.rename(case.image.with_suffix(".away"))
    done = migrate(root)
    assert done.table() == (
        f"store {root}: 3 cases brought from schema 1 to 2\n"
        f"  added: part and external (none: the source says so at the next prepare), the label's hash, the "
        f"fingerprint, the histogram of liver and tumour HU, the scan's own grid\n"
        f"  kept: every array, its hash, its tables"
    )
    assert migrate(root).table() == f"store {root}: nothing to bring over, all cases have schema 2"
    old, new = Store(root), Store(fresh)
    for case in "abc":
        assert old.info(case) == new.info(case)
        assert np.array_equal(old.fingerprint(case), new.fingerprint(case))
        assert np.array_equal(old.foreground_histogram(case), new.foreground_histogram(case))
        assert np.array_equal(old.reference(case), new.reference(case))
    assert verify(root, workers=1).problems == []
    assert not list(root.glob(".*partial"))


def test_prepare_brings_an_older_store_over_by_itself_and_reads_nothing_again(tmp_path, cases):
    root = old_store(tmp_path, cases)
    cases[1] = dataclasses.replace(cases[1], part="test")
    report = run(cases, root)
    assert report.migration.done == {1: ["a", "b", "c"]}
    assert (report.stored, report.updated, report.skipped) == ([], ["b"], ["a", "c"])
    assert Store(root).info("b").part == "test"
    assert report.table().startswith(f"store {root}: 3 cases brought from schema 1 to 2\n")
    assert json.loads((root / "store.json").read_text())["schema"] == 2


def test_a_case_that_cannot_be_brought_over_stays_as_it_was(tmp_path, cases):
    root = old_store(tmp_path, cases)
    with h5py.File(root / "b.h5", "r+") as file:
        del file["image"]
    before = (root / "b.h5").read_bytes()
    done = migrate(root)
    assert done.done == {1: ["a", "c"]}
    assert [case for case, _ in done.failed] == ["b"]
    assert "cut short or damaged" in done.failed[0][1]
    assert (root / "b.h5").read_bytes() == before
    assert run(cases, root).stored == ["b"]  # from its scan


def test_a_later_schema_stops_the_migration_before_anything_is_changed(tmp_path, cases):
    root = old_store(tmp_path, cases)
    with h5py.File(root / "c.h5", "r+") as file:
        file.attrs["schema"] = 3
    before = {p.name: p.read_bytes() for p in root.glob("*.h5")}
    with pytest.raises(StoreError) as error:
        migrate(root)
    assert str(error.value) == (
        f"{root}/c.h5: store schema 3 is of a later version, this one reads 2; bring Hepar up to date, or prepare "
        f"another store with store=..."
    )
    assert {p.name: p.read_bytes() for p in root.glob("*.h5")} == before
