import numpy as np

from core.analysis.detection import detection_model


def lesions(n=300, patients=30, seed=0, **fixed):
    """Found the likelier the larger they are, and by patient; nothing else matters."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        diameter = float(2 ** rng.normal(3.5, 1))
        chance = 1 / (1 + np.exp(-1.5 * (np.log2(diameter) - 3.5) - (i % patients % 3 - 1)))
        row = {
            "case": f"c{i % patients}",
            "diameter_mm": diameter,
            "contrast_hu": float(rng.normal(-40, 15)),
            "border_hu_per_mm": float(rng.gamma(4, 2)),
            "slice_thickness_mm": [1.0, 2.5, 5.0][i % patients % 3],
            "border_distance_mm": float(rng.exponential(10)),
            "matched": 1 if rng.random() < chance else None,
        }
        rows.append({**row, **fixed})
    return rows


def test_finds_the_effect_that_is_there():
    got = detection_model(lesions())
    terms = {term["name"]: term for term in got["terms"]}
    assert list(terms) == ["diameter", "contrast", "sharpness", "slice_thickness", "border_distance"]
    low, high = terms["diameter"]["ci95"]
    assert low < np.exp(1.5) < high
    assert terms["diameter"]["p"] < 0.01
    assert terms["diameter"]["unit"] == "doubling of the diameter"
    low, high = terms["contrast"]["ci95"]
    assert low < 1 < high
    assert (got["available"], got["patients"], got["lesions"]) == (True, 30, 300)


def test_terms_enter_in_their_order_as_events_allow():
    got = detection_model(lesions(60))
    assert 20 <= got["events"] < 30
    assert [term["name"] for term in got["terms"]] == ["diameter", "contrast"]
    assert got["left_out"][0] == {"name": "sharpness", "why": f"{got['events']} events, 30 needed"}


def test_terms_that_say_nothing_are_passed_over():
    got = detection_model(lesions(contrast_hu=None, slice_thickness_mm=5.0))
    assert [term["name"] for term in got["terms"]] == ["diameter", "sharpness", "border_distance"]
    assert got["left_out"] == [
        {"name": "contrast", "why": "not known for any lesion"},
        {"name": "slice_thickness", "why": "the same in all lesions, or told by the terms before it"},
    ]


def test_too_few_events_or_patients_give_no_model():
    got = detection_model(lesions(matched=1))
    assert (got["available"], got["terms"]) == (False, [])
    assert got["why"] == "0 events, the rarer of found and missed lesions: a term takes 10"
    assert detection_model(lesions(patients=4))["why"] == "4 patients: too few for intervals, which take 10"
    assert detection_model([])["why"].startswith("0 events")
