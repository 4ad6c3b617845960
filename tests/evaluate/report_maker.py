"""Made-up records of evaluated models, with every part that a report can show."""

import numpy as np

from facenet.evaluate import curves

PICTURE = b"\xff\xd8\xff\xe0made up\xff\xd9"
GROUPS = ["East", "West", "North"]


def scores(seed=0, pairs=1200, mean=0.6):
    generator = np.random.default_rng(seed)
    mated, others = generator.normal(mean, 0.14, pairs), generator.normal(0.03, 0.12, pairs)
    return np.clip(mated, -1, 1), np.clip(others, -1, 1)


def result(name="first", seed=0):
    """One model with all parts; the numbers need not agree with each other."""
    mated, others = scores(seed, mean=0.6 + 0.04 * seed)
    tar = {}
    for rate in (0.1, 0.01):
        point = curves.tar_at_far(mated, others, rate)
        tar[curves.rate_name(rate)] = {
            "tar": point.tar,
            "ci": [point.tar - 0.02, min(1.0, point.tar + 0.01)],
            "far": point.far,
            "threshold": point.threshold,
            "false_matches": point.false_matches,
        }
    return {
        **facts(name),
        **counted(seed),
        "tar_at_far": tar,
        "refused": {"1e-5": curves.refusal(1e-5, len(others))},
        "curves": {
            "roc": curves.roc_points(mated, others),
            "histogram": curves.histogram(mated, others),
        },
        "identification": searches(),
        "quality": {"detection_score": discards(), "vector_length": discards()},
        "groups": {"region": groups()},
        "calibration": {
            "cllr": 0.0823,
            "min_cllr": 0.0711,
            "reliability": {"predicted": [0.05, 0.4, 0.95], "observed": [0.02, 0.44, 0.97]},
            "table": [{"similarity": 0.31, "llr": -2.125, "probability": 0.1067}],
        },
        "fmr_table": {"similarity": [0.1, 0.2, 0.3], "false_matches": [900, 40, 0], "pairs": 9000},
        "worst": {
            "false_matches": [{"a": "ann/1.jpg", "b": "bea/2.jpg", "similarity": 0.6123}],
            "false_non_matches": [{"a": "cy/1.jpg", "b": "cy/2.jpg", "similarity": 0.1371}],
        },
    }


def facts(name):
    return {
        "model": name,
        "model_digest": "0123abcd" * 8,
        "contract": f"{name}/512",
        "precision": "fp32",
        "engine": "onnxruntime 1.23 on cpu",
        "detector": "mtcnn 20",
        "preprocess": {"crop": "square", "mean": [127.5, 128.25], "width": 160},
        "dataset": "Made up, view 2",
        "protocol": "facenet: 10 contiguous folds, no flip",
        "digests": {"pairs.txt": "feed" * 16},
        "notes": ["Folds share no people."],
        "problems": ["No face was found in dan/7.jpg."],
        "seconds": {"read": 1.25, "detect": 33.5, "embed": 12.75, "score": 0.5},
    }


def counted(seed=0):
    return {
        "pairs": 2400,
        "mated": 1200,
        "non_mated": 1200,
        "pictures": 4711,
        "people": 1234,
        "failures": 17,
        "not_found": 23,
        "accuracy": 0.98754 + 0.001 * seed,
        "accuracy_std": 0.00417,
        "accuracy_ci": [0.98311, 0.99123],
        "threshold": 0.29345,
        "thresholds": [0.291, 0.296],
        "fold_accuracies": [0.9861, 0.9889],
        "errors": {"false_matches": 31, "false_non_matches": 43},
        "auc": 0.99963,
        "auc_ci": [0.99912, 0.99987],
        "eer": 0.01357,
        "eer_ci": [0.01012, 0.01733],
        "d_prime": 4.3217,
        "d_prime_ci": [4.1034, 4.5461],
        "val_at_far": {
            "val": 0.94321,
            "val_std": 0.02134,
            "val_ci": [0.92018, 0.95991],
            "far": 0.00108,
        },
        "published": 0.9905,
        "published_protocol": "by its author",
    }


def searches():
    rates = np.geomspace(1e-3, 1, 40)
    return {
        "gallery": 5749,
        "searches_mated": 901,
        "searches_non_mated": 4069,
        "cmc": {"1": 0.9712, "5": {"share": 0.9853, "ci": [0.9812, 0.9894]}},
        "cmc_curve": (1 - 0.03 / np.arange(1, 21)).tolist(),
        "fnir_at_fpir": {"1e-2": {"fnir": 0.0873, "ci": [0.0712, 0.1098], "false_positives": 12}},
        "fnir_curve": {"fpir": rates.tolist(), "fnir": (0.02 * rates**-0.3).tolist()},
        "scaling": [
            {"gallery": 100, "fnir": 0.0411},
            {"gallery": 1000, "fnir": 0.0822, "fnir_ci": [0.07, 0.09], "fpir": 0.0098},
        ],
    }


def discards():
    return {
        "discard": [0.0, 0.1, 0.2],
        "fnmr": [0.05, 0.03, 0.02],
        "oracle": [0.05, 0.0, 0.0],
        "random": [0.05, 0.05, 0.05],
        "pauc_20": 0.00663,
    }


def groups():
    rows = [
        {
            "group": group,
            "fmr": 0.0021 * (number + 1),
            "fmr_ci": [0.0013, 0.0091],
            "fnmr": 0.0234,
            "fnmr_ci": [0.0187, 0.0291],
            "mated": 400 + number,
            "non_mated": 500 + number,
        }
        for number, group in enumerate(GROUPS)
    ]
    cross = [[10.0 ** -(2 + abs(i - j)) for j in range(3)] for i in range(3)]
    return {
        "rows": rows,
        "summary": {"fmr_ratio": 3.0172, "fmr_ratio_ci": [2.1043, 7.7071]},
        "cross": {"groups": GROUPS, "fmr": cross},
    }


def report(*models):
    return {
        "title": "A made-up evaluation",
        "command": "facenet evaluate lfw data --report out",
        "created": "2026-11-22T04:00:00Z",
        "facenet": "0.1.0",
        "machine": {"cpu": "A processor", "cores": 2, "python": "3.11.2", "engines": "some"},
        "models": list(models) or [result("first"), result("second", 1)],
        "paired": [
            {
                "a": "first",
                "b": "second",
                "metric": "accuracy",
                "difference": -0.00413,
                "ci": [-0.00721, -0.00118],
            }
        ],
    }
