"""The LiTS scores against a rewrite of the described steps that shares no code with them: whole volumes and loops."""

import collections
import itertools
import math

import numpy as np
import pytest

from core.measure import lits
from core.measure.pair import CasePair
from plugins.metric.lits import Lits

SPACING = (2.5, 0.8, 0.7)


# --- The rewrite. Arrays are [x, y, z], as nibabel gives them to the program.


def flood(mask):
    """Ids of the 6-connected parts, in the order in which a scan (x slowest) meets them."""
    ids, count = np.zeros(mask.shape, int), 0
    for start in itertools.product(*map(range, mask.shape)):
        if not mask[start] or ids[start]:
            continue
        count += 1
        queue = collections.deque([start])
        ids[start] = count
        while queue:
            at = queue.popleft()
            for axis, step in itertools.product(range(3), (-1, 1)):
                to = list(at)
                to[axis] += step
                to = tuple(to)
                if 0 <= to[axis] < mask.shape[axis] and mask[to] and not ids[to]:
                    ids[to] = count
                    queue.append(to)
    return ids, count


def matched(pred_ids, ref_ids, t, defect):
    """Detections, and both volumes relabelled so that a pair that counts has one id."""
    detected, merged_ref = np.zeros_like(pred_ids), ref_ids.copy()
    if not ref_ids.any():
        return 0, detected, merged_ref
    ps = [p for p in range(1, pred_ids.max() + 1) if ((pred_ids == p) & (ref_ids > 0)).any()]
    gs = list(range(1, ref_ids.max() + 1))
    table = {(p, g): int(((pred_ids == p) & (ref_ids == g)).sum()) for p in ps for g in gs}
    weight = dict.fromkeys(gs, 1)
    for p in ps:
        own = []
        for g in gs:
            column = [table[q, g] for q in ps]
            if table[p, g] and ps[column.index(max(column))] == p:
                own.append(g)
        for g in own[1:]:
            merged_ref[merged_ref == g] = own[0]
            for q in ps:
                table[q, own[0]] += table.pop((q, g))
            gs.remove(g)
        for g in own:
            weight[g] = len(own)
    choice = {}
    for p in ps:
        row = [table[p, g] for g in gs]
        choice[p] = gs[row.index(max(row))]
    firsts, shared = {}, collections.Counter()
    for p in ps:
        detected[pred_ids == p] = choice[p]
        firsts.setdefault(choice[p], p)
        shared[choice[p]] += table[p, choice[p]]
    count = len(firsts)
    for g, p in sorted(firsts.items(), key=lambda item: item[1]):
        union = int(((detected == (p if defect else g)) | (merged_ref == g)).sum())
        if shared[g] / union <= t:
            detected[detected == g] = 0
            count -= weight[g]
    return count, detected, merged_ref


def border(mask):
    out = []
    for at in map(tuple, np.argwhere(mask)):
        for step in itertools.product((-1, 0, 1), repeat=3):
            to = tuple(a + s for a, s in zip(at, step, strict=True))
            near = 0 < sum(map(abs, step)) < 3
            if near and (min(to) < 0 or any(a >= n for a, n in zip(to, mask.shape, strict=True)) or not mask[to]):
                out.append(at)
                break
    return np.array(out) * np.array(SPACING[::-1])


def scored(pred, ref):
    p, r, both = pred.sum(), ref.sum(), (pred & ref).sum()
    apart = np.sqrt(((border(pred)[:, None] - border(ref)[None]) ** 2).sum(axis=2))
    every = [*apart.min(axis=1), *apart.min(axis=0)]
    dice = 2 * both / (p + r)
    jaccard = dice / (2 - dice)
    mean = sum(every) / len(every)
    return [
        dice,
        jaccard,
        1 - jaccard,
        (r - p) / p,
        mean,
        math.sqrt(sum(d * d for d in every) / len(every)),
        max(every),
    ]


def one_case(pred, ref, defect):
    """What the program keeps of one case; labels ``[x, y, z]``."""
    (pred_ids, n_pred), (ref_ids, n_ref) = flood(pred == 2), flood(ref == 2)
    found = {"pred": n_pred, "ref": n_ref}
    found["tp", 0] = matched(pred_ids, ref_ids, 0, defect)[0]
    found["tp", 0.5], detected, merged = matched(pred_ids, ref_ids, 0.5, defect)
    keep = found["tp", 0.5] > 0 or not defect
    found["lesions"] = [scored(detected == g, merged == g) for g in np.unique(detected[detected > 0])] if keep else []
    there = bool((pred == 1).any())
    found["liver"] = scored(pred > 0, ref > 0) if there else [0, 0, 1, *[9001] * 4]
    a, b, both = (pred == 2).sum(), (ref == 2).sum(), ((pred == 2) & (ref == 2)).sum()
    found["dice"] = 2 * both / (a + b) if a + b else 1.0
    found["burden"] = b / (ref > 0).sum() - (a / (pred > 0).sum() if there else 9001)
    return found


def over_cases(cases):
    """What the program writes at its end."""
    out = {}
    for t, name in ((0, "_greater_zero"), (0.5, "")):
        tp, n_pred, n_ref = (sum(case[key] for case in cases) for key in (("tp", t), "pred", "ref"))
        out |= {f"tp{name}": tp, f"fp{name}": n_pred - tp, f"fn{name}": n_ref - tp}
        out |= {f"precision{name}": tp / n_pred if n_pred else 0, f"recall{name}": tp / n_ref if n_ref else 0}
    lesions = [lesion for case in cases for lesion in case["lesions"]]
    out["lesions"] = np.mean(lesions, axis=0) if lesions else [0, 0, 1, *[9001] * 4]
    out["livers"] = np.mean([case["liver"] for case in cases], axis=0)
    out["dice_per_case"] = np.mean([case["dice"] for case in cases])
    burdens = [case["burden"] for case in cases]
    out["burden"] = [math.sqrt(np.mean(np.square(burdens))), max(burdens)]
    return out


# --- Ours, brought to the same form.


def ours(tables, mode):
    found = Lits().summarise(tables)[f"lits_{mode}"]
    lesion = found["lesion"]
    out = {key: lesion[key] for key in lesion if key.split("_")[0] in ("tp", "fp", "fn", "precision", "recall")}
    out = {key: value for key, value in out.items() if not key.endswith("ci95")}
    names = ("dice", "jaccard", "voe", "rvd", "assd_mm", "rmsd_mm", "msd_mm")
    out["lesions"], out["livers"] = ([found[part][name] for name in names] for part in ("lesion", "liver"))
    out["dice_per_case"] = lesion["dice_per_case"]
    out["burden"] = [found["tumour_burden"]["rmse"], found["tumour_burden"]["max"]]
    return out


def measured(pairs, first=0, **more):
    tables = {"lits": [], "lits_lesions": []}
    for number, (pred, ref) in enumerate(pairs, first):
        pair = CasePair(f"{number:03d}", pred, ref, SPACING, **more)
        for table, rows in Lits().measure(pair).items():
            tables[table] += rows
    return tables


def random_pair(rng):
    """Labels with few or many ragged lesions; the prediction is the reference shaken, or something else."""
    shape = tuple(int(n) for n in rng.integers(4, 8, 3))
    liver = (rng.random(shape) < 0.95).astype(np.uint8)
    if rng.random() < 0.6:  # boxes, of which some touch each other
        ref = liver.copy()
        for _ in range(rng.integers(1, 7)):
            corner = [int(rng.integers(0, n)) for n in shape]
            size = rng.integers(1, 4, 3)
            ref[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = 2
        moved = np.roll(ref, tuple(rng.integers(-1, 2, 3)), (0, 1, 2)) if rng.random() < 0.7 else ref
        flips = rng.random(shape) < rng.choice([0, 0.05, 0.15])
        pred = np.where(flips, rng.integers(0, 3, shape), moved).astype(np.uint8)
    else:
        dense = rng.choice([0.05, 0.2, 0.35])
        pred, ref = (np.where(rng.random(shape) < dense, 2, liver).astype(np.uint8) for _ in range(2))
    return (pred, ref) if rng.random() < 0.5 else (ref, pred)


@pytest.fixture(scope="module")
def many():
    """Both programs and ours on the same random cases."""
    rng = np.random.default_rng(5)
    pairs = [random_pair(rng) for _ in range(70)]
    turned = [(pred.transpose(2, 1, 0), ref.transpose(2, 1, 0)) for pred, ref in pairs]
    rewrite = {mode: [one_case(*pair, mode == "published") for pair in turned] for mode in lits.MODES}
    return rewrite, [measured([pair], first=number) for number, pair in enumerate(pairs)]


@pytest.mark.parametrize("mode", lits.MODES)
def test_each_random_case_equals_the_rewrite(many, mode):
    rewrite, tables = many
    for case, own in zip(rewrite[mode], tables, strict=True):
        want, got = over_cases([case]), ours(own, mode)
        assert got.keys() == want.keys()
        for key, value in want.items():
            assert got[key] == pytest.approx(value, abs=1e-9, rel=1e-9), key


@pytest.mark.parametrize("mode", lits.MODES)
def test_the_whole_data_set_equals_the_rewrite(many, mode):
    rewrite, tables = many
    pooled = {name: [row for own in tables for row in own[name]] for name in ("lits", "lits_lesions")}
    want, got = over_cases(rewrite[mode]), ours(pooled, mode)
    for key, value in want.items():
        assert got[key] == pytest.approx(value, abs=1e-9, rel=1e-9), key


def test_the_random_cases_are_worth_it(many):
    published, documented = many[0]["published"], many[0]["documented"]
    for cases in (published, documented):
        assert sum(case["tp", 0.5] < 0 for case in cases) >= 3
        assert sum(case["tp", 0.5] > 2 for case in cases) >= 3
    pairs = list(zip(published, documented, strict=True))
    assert sum(a["tp", 0.5] != b["tp", 0.5] for a, b in pairs) >= 3
    assert all(a["tp", 0] == b["tp", 0] for a, b in pairs)  # at 0 the defect has no effect
