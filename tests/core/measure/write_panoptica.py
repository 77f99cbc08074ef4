"""Write panoptica.json: what panoptica finds on the pairs of the agreement tests.

panoptica asks for older versions of numpy and connected-components-3d than Hepar runs on, so it is no test extra: its
figures are recorded. In an environment of its own, from this folder:

    pip install panoptica==2.1.7
    python write_panoptica.py
"""

import importlib.metadata
import json
from pathlib import Path

import cc3d
import numpy as np
from agreement_pairs import confluent, fingerprint, make_pairs
from panoptica import InputType, MaxBipartiteMatching, Panoptica_Evaluator
from panoptica.metrics import Metric

FILE = Path(__file__).with_name("panoptica.json")
THRESHOLDS = {"any": 0.0, "iou_0.1": 0.1, "iou_0.5": 0.5}


def lesions(mask):
    return cc3d.connected_components(mask, connectivity=26).astype(np.uint16)


def figures(pred, ref, spacing):
    """Of the tumour: lesions by 26-connectivity, matched one to one at an IoU above each threshold."""
    out = {}
    for name, threshold in THRESHOLDS.items():
        evaluator = Panoptica_Evaluator(
            expected_input=InputType.UNMATCHED_INSTANCE,
            instance_matcher=MaxBipartiteMatching(matching_threshold=threshold, strict_threshold=True),
            instance_metrics=[Metric.IOU, Metric.DSC, Metric.ASSD],
            global_metrics=[Metric.DSC],
        )
        found = evaluator.evaluate(lesions(pred == 2), lesions(ref == 2), voxelspacing=spacing)["ungrouped"]
        out[name] = {key: int(getattr(found, key)) for key in ("tp", "fp", "fn")}
        if found.tp:
            keys = ("sq", "rq", "pq", "sq_dsc", "sq_assd", "global_bin_dsc")
            out[name] |= {key: float(getattr(found, key)) for key in keys}
    return out


def content():
    """What the file holds."""
    pairs = make_pairs()
    return {
        "panoptica": importlib.metadata.version("panoptica"),
        "pairs": fingerprint(pairs),
        "figures": [figures(*pair) for pair in pairs],
        "confluent": figures(*confluent())["any"],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(content(), indent=1) + "\n", encoding="utf-8")
    print(FILE)
