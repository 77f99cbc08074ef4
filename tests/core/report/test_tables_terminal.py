from core.report.terminal import terminal


def test_the_terminal_table_gives_the_tumour_twice():
    figures_of = {"mean": 0.5, "median": 0.6, "global": None, "n": 4, "empty": "lits", "both_empty": 1, "one_empty": 2}
    bearing = {"mean_tumour_bearing": 0.25, "median_tumour_bearing": 0.125, "n_tumour_bearing": 3}
    free = {"n": 2, "missing": 1, "false_positive_cases": 0, "specificity": 0.5}
    free["false_positive_volume_ml"] = {"mean": None, "max": None, "n": 0, "left_out": 1}
    summary = {
        "liver": {"dice": {"mean": 0.95, "median": 0.96, "global": 0.97, "n": 4}},
        "tumour": {"dice": {**figures_of, **bearing}},
        "dice_macro": {"mean": 0.75, "median": 0.75, "n": 4},
        "burden_rmse": 0.125,
        "by_size": {"small": {"recall": 0.5}},
        "tumour_free": free,
    }
    assert terminal(summary) == (
        "Dice                              mean  median  global     n\n"
        "  liver                          0.950   0.960   0.970     4\n"
        "  tumour, all cases              0.500   0.600       -     4\n"
        "    (1 empty on both sides count 1, 2 on one side 0, policy 'lits')\n"
        "  tumour, cases that have one    0.250   0.125       -     3\n"
        "  macro                          0.750   0.750       -     4\n"
        "\n"
        "  burden_rmse                    0.125       -       -\n"
        "\n"
        "Tumour-free cases: 2, 1 without false tumour (specificity 0.500); 1 without a prediction; "
        "no volumes, since the spacing cannot be trusted"
    )


def detection(tp, fp, fn, **more):
    return {"tp": tp, "fp": fp, "fn": fn, "recall": 0.75, "precision": 0.5, "f1": 0.6, **more}


def test_surfaces_lesions_and_the_lits_scores_have_blocks_of_their_own():
    figures = {"mean": 1.5, "median": 1.25, "n": 12}
    summary = {
        "liver": {
            "dice": {"mean": 0.95, "median": 0.96, "global": 0.97, "n": 12, "ci95": [0.93, 0.97]},
            "assd_mm": figures,
            "nsd_2mm": {"mean": 0.9, "median": 0.9, "n": 12},
        },
        "tumour": {"assd_mm": {"mean": 2.5, "n": 9}, "nsd_2mm": {"mean": 0.5, "n": 12}, "voe": {"mean": 0.25, "n": 12}},
        "lesions": {
            "any": detection(12, 3, 5, recall_ci95=[0.5, 0.9]),
            "iou_0.5": detection(2, 13, 15),
            "coverage": {"found": 13, "missed": 4, "recall": 0.7647, "recall_ci95": None},
            "dice_detected": {"mean": 0.8, "n": 12},
            "false_positives_per_case": {"mean": 0.25},
            "froc": {"available": False, "why": "no probabilities were kept"},
            "by_size": {"any": {"[0,10)": detection(1, 2, 3)}},
            "boundary": {"assd_mm": {"mean": 0.5, "n": 7}},
        },
        "tumour_burden": {"rmse": 0.0125, "max_abs": 0.025, "difference": {"left_out": 1}},
        "surface": {"definition": "edge6", "empty": "worst", "cases_with_slices_above_tolerance": {"1": 12, "2": 0}},
        "lits_published": {"lesion": {"recall": 0.5, "dice_per_case": 0.625}, "liver": {}},
        "lits_documented": {"lesion": {"recall": 0.25, "dice_per_case": 0.625}, "liver": {}},
    }
    text = terminal(summary)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert text == (
        "Dice                              mean    95 % interval  median  global    95 % interval     n\n"
        "  liver                          0.950   [0.930, 0.970]   0.960   0.970                -    12\n"
        "\n"
        "Volume, mean over cases         VOE      n\n"
        "  tumour                      0.250     12\n"
        "  tumour burden (tumour / liver): RMSE 0.013, greatest difference 0.025 (1 without a liver left out)\n"
        "\n"
        "Surface, mean over cases    ASSD mm NSD 2 mm      n\n"
        "  liver                        1.50    0.900     12\n"
        "  matched lesions              0.50        -      7\n"
        "  tumour, whole mask           2.50    0.500   9-12\n"
        "  surface edge6, policy 'worst' for empty masks\n"
        "  cases with slices further apart than the tolerance: 12 at 1 mm\n"
        "\n"
        "Lesions, counted as found by        found missed  false  recall    95 % interval   prec.      F1\n"
        "  any overlap                          12      5      3   0.750   [0.500, 0.900]   0.500   0.600\n"
        "  IoU > 0.5                             2     15     13   0.750                -   0.500   0.600\n"
        "  10 % of it predicted                 13      4          0.765                -\n"
        "  Dice of found lesions 0.800, 0.25 false a case\n"
        "  FROC: not available: no probabilities were kept\n"
        "\n"
        "Lesions by diameter, any overlap    found missed  false  recall   prec.      F1\n"
        "  [0,10) mm                             1      3      2   0.750   0.500   0.600\n"
        "\n"
        "LiTS scores beside ours                     ours   published  documented\n"
        "  tumour Dice per case                         -       0.625       0.625\n"
        "  lesion recall, overlap > 0.5             0.750       0.500       0.250"
    )
