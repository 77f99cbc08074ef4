"""The metrics against other ways: that all ways measure the same, and what the tables hold; never how fast."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from core.bench import measures
from core.bench.measures import Measure, bench_measures
from core.bench.measures_pair import label_pair
from core.bench.measures_systems import SYSTEMS
from core.bench.measures_ways import WAYS, hepar, lits, versions
from core.bench.ways import Cost
from core.errors import UserError
from core.measure import surface
from core.measure.matching import match_at, overlaps
from core.measure.pair import CasePair
from plugins.metric.dice import Dice
from plugins.metric.surface import SurfaceDistances


@pytest.fixture(scope="module")
def pair():
    return label_pair(40, 12, side=96)


def test_a_pair_is_a_liver_with_lesions_and_a_prediction_a_little_off(pair):
    assert pair.pred.shape == pair.ref.shape == (40, 96, 96)
    assert pair.volumes == 2 * 40 * 96 * 96
    case = CasePair("a", pair.pred, pair.ref, pair.spacing_mm)
    litres = case.counts("liver").ref * case.voxel_ml / 1000
    assert 1.5 < litres < 2.5
    assert 0.9 < hepar(pair)["liver"]["dice"] < 0.99
    assert 6 <= case.lesions("ref").count <= 12
    again, other = label_pair(40, 12, side=96), label_pair(40, 12, number=1, side=96)
    assert np.array_equal(again.pred, pair.pred)
    assert not np.array_equal(other.ref, pair.ref)


def test_the_lits_scorer_s_way_gives_the_same_figures_with_its_own_surface(pair):
    ours, theirs = hepar(pair), lits(pair)
    case = CasePair("a", pair.pred, pair.ref, pair.spacing_mm)
    for structure in ("liver", "tumour"):
        apart = surface.of_pair(case, structure, "edge18")
        for name in ("dice", "iou", "voe", "rvd"):
            assert theirs[structure][name] == pytest.approx(ours[structure][name], abs=1e-9)
        for name in ("assd", "rmsd", "hd", "hd95"):
            assert theirs[structure][name] == pytest.approx(getattr(apart, name)(), abs=1e-9)
        for tolerance in (1, 2, 3):
            assert theirs[structure][f"nsd_{tolerance}"] == pytest.approx(apart.nsd(tolerance), abs=1e-9)
    touching = overlaps(case.lesions("ref", 6), case.lesions("pred", 6))  # its lesions; above 0.5 none has two partners
    assert theirs["lesions"]["iou_0.5"] == len(match_at(touching, 0.5))


def test_ours_are_the_figures_of_the_metrics(pair):
    case = CasePair("a", pair.pred, pair.ref, pair.spacing_mm)
    rows = {row["structure"]: row for row in SurfaceDistances().measure(case)["cases"]}
    for structure, figures in hepar(pair).items():
        if structure != "lesions":
            for name in ("assd", "rmsd", "hd", "hd95"):
                assert figures[name] == rows[structure][f"{name}_mm"]
            assert [figures[f"nsd_{t}"] for t in (1, 2, 3)] == [rows[structure][f"nsd_{t}mm"] for t in (1, 2, 3)]


def test_tables_with_a_slow_system_timed_once(monkeypatch):
    def in_this_process(way, folder):
        way(folder)
        return Cost(0.0, 0.0)

    calls = []
    monkeypatch.setattr(measures, "run", in_this_process)
    monkeypatch.setitem(SYSTEMS, "medpy", dataclasses.replace(SYSTEMS["medpy"], module="scipy", package="scipy"))
    monkeypatch.setitem(WAYS, "medpy", calls.append)
    metrics = {"dice": Dice(), "surface": SurfaceDistances()}
    report = bench_measures(
        metrics, against=["lits", "medpy"], pairs=2, slices=20, blocks=2, lesions=9, large=24, side=64
    )
    tables = {table.key: {row["row"]: row for row in table.rows} for table in report.tables}
    assert list(tables["measures"]) == ["Hepar", "the LiTS scorer's way", "medpy"]
    assert [row["wanted"] for row in tables["measures"].values()] == [None, ">= 5", ">= 300"]
    assert tables["measures"]["Hepar"]["ratio"].values == (1, 1)
    assert tables["measures"]["medpy"]["ratio"] > 0
    assert len(calls) == 1
    parts = tables["parts"]
    assert list(parts)[-3:] == ["metric: dice", "metric: surface", "= the experiment's metrics"]
    whole = sum(row["share"].median for name, row in parts.items() if not name.startswith(("metric", "=")))
    assert whole == pytest.approx(1, abs=0.2)
    assert list(tables["memory"]) == ["64x64x20, about 9 lesions", "64x64x24, about 60 lesions"]
    assert [row["wanted"] for row in tables["memory"].values()] == ["< 6", "seconds"]
    assert report.settings["scipy"]
    assert "medpy: once, on one pair, between two runs of Hepar." in report.tables[0].notes


def test_memory_is_what_comes_on_top_of_the_process(tmp_path, pair):
    np.savez(tmp_path / "pair.npz", pred=pair.pred, ref=pair.ref)
    Measure(tmp_path / "pair.npz", pair.spacing_mm)(tmp_path)
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["volumes"] == pair.volumes
    assert cost["seconds"] > 0
    assert cost["peak"] < 2**30


def test_a_system_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(SYSTEMS, "monai", dataclasses.replace(SYSTEMS["monai"], module="no_such", package="no-such"))
    with pytest.raises(UserError) as caught:
        versions(["monai"])
    assert str(caught.value) == (
        "--against monai: the package no-such is not installed here (the project does not need it); "
        "pip install no-such, or leave monai out"
    )
    assert versions([]) == {}


@pytest.fixture
def parse(monkeypatch):
    """The arguments of tools/bench.py as it reads them."""
    spec = importlib.util.spec_from_file_location(
        "bench_tool", Path(measures.__file__).parents[2] / "tools" / "bench.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def parse_words(*words):
        monkeypatch.setattr("sys.argv", ["bench.py", *words])
        return tool._parse()

    return parse_words


def test_the_tool_s_arguments(parse, capsys):
    args = parse("evaluate", "--against", "medpy,lits", "--large", "--cases", "3")
    assert (args.against, args.large, args.cases, args.slices) == (["lits", "medpy"], 600, 3, 110)
    assert parse("evaluate").against == []
    with pytest.raises(SystemExit):
        parse("evaluate", "--against", "mona")
    said = "argument --against: no 'mona', did you mean 'monai'?; there are lits, surface_distance, monai, medpy"
    assert said in capsys.readouterr().err
