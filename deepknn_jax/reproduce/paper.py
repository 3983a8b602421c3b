"""The figures that the papers print, in per cent: Deep kNN and, named NW, Neighborhood Watch."""

Figures = dict[str, float]


def _of(keys: str, *values: float) -> Figures:
    return dict(zip(keys.split(), values, strict=True))


def _all(*values: float) -> Figures:
    return _of("acc mcr rs", *values)


# Table 2: set -> method, K_p -> figures.
TABLE2: dict[str, dict[tuple[str, str], Figures]] = {
    "skin7": {
        ("knn vgg19", "1"): _all(71.4, 42.0, 37.9),
        ("knn", "1"): _all(75.6, 49.9, 55.2),
        ("triplet", "1"): _all(82.9, 64.2, 63.2),
        ("deep_knn", "1"): _all(88.2, 77.4, 77.0),
        ("knn vgg19", "5"): _all(70.7, 30.8, 10.3),
        ("knn", "5"): _all(74.4, 37.5, 34.5),
        ("triplet", "5"): _all(84.3, 68.3, 67.3),
        ("deep_knn", "5"): _all(89.1, 78.9, 77.3),
        ("weighted_ce", "head"): _all(88.0, 80.2, 76.6),
        ("deep_knn_star", "5"): _all(90.3, 81.0, 80.4),
    },
    "pneumonia": {
        ("knn vgg19", "1"): _all(52.7, 52.4, 43.1),
        ("knn", "1"): _all(52.4, 51.2, 38.9),
        ("triplet", "1"): _all(67.8, 66.3, 65.2),
        ("deep_knn", "1"): _all(71.0, 69.3, 67.3),
        ("knn vgg19", "5"): _all(55.4, 55.7, 45.0),
        ("knn", "5"): _all(55.5, 54.7, 39.7),
        ("triplet", "5"): _all(70.0, 68.7, 66.3),
        ("deep_knn", "5"): _all(71.1, 69.4, 69.0),
        ("weighted_ce", "head"): _all(71.1, 69.1, 70.1),
        ("deep_knn_star", "5"): _all(71.6, 71.1, 70.9),
    },
    "sd198": {
        ("knn vgg19", "1"): _all(24.5, 24.4, 20.8),
        ("knn", "1"): _all(27.6, 28.4, 29.2),
        ("triplet", "1"): _all(60.0, 60.1, 47.3),
        ("deep_knn", "1"): _all(64.5, 64.1, 48.3),
        ("knn vgg19", "5"): _all(15.1, 13.3, 4.2),
        ("knn", "5"): _all(19.1, 17.5, 12.5),
        ("triplet", "5"): _all(60.2, 60.0, 47.2),
        ("deep_knn", "5"): _all(65.1, 64.3, 48.3),
        ("weighted_ce", "head"): _all(61.9, 62.4, 47.7),
        ("deep_knn_star", "5"): _all(66.4, 66.4, 51.5),
    },
}
TABLE3: dict[str, Figures] = {
    "knn": _all(64.53, 34.49, 10.34),
    "nca": _all(75.06, 36.39, 27.59),
    "lmnn": _all(81.85, 61.78, 62.07),
    "triplet": _all(77.13, 62.22, 63.43),
    "ce": _all(78.85, 63.11, 64.21),
    "deep_knn": _all(85.09, 66.08, 67.30),
}
# Table 4, SD-198: backbone -> figures of the strong kNN and of deep kNN.
TABLE4: dict[str, dict[str, Figures]] = {
    "vgg19": {"ce": _all(59.16, 56.33, 43.12), "deep_knn": _all(61.51, 61.93, 45.43)},
    "resnet50": {"ce": _all(60.17, 57.35, 46.01), "deep_knn": _all(65.12, 64.34, 48.31)},
    "densenet121": {"ce": _all(60.54, 60.12, 50.42), "deep_knn": _all(64.02, 65.11, 52.21)},
    "seresnet50": {"ce": _all(61.85, 59.32, 50.01), "deep_knn": _all(62.79, 62.27, 53.12)},
}
# Table S2, accuracy alone.
TABLES2: dict[str, dict[tuple[str, str], Figures]] = {
    name: dict(
        zip(
            (
                *(("knn", "1"), ("triplet", "1"), ("deep_knn", "1")),
                *(("knn", "5"), ("triplet", "5"), ("deep_knn", "5")),
                *(("weighted_ce", "head"), ("deep_knn_star", "5")),
            ),
            (_of("acc", value) for value in values),
            strict=True,
        )
    )
    for name, values in {
        "stl10": (92.39, 69.31, 95.21, 93.32, 70.52, 96.91, 94.06, 95.00),
        "cub200": (40.75, 65.34, 74.95, 42.47, 66.20, 75.32, 79.3, 81.10),
        "tiny_imagenet": (58.82, 67.32, 74.32, 62.44, 73.03, 75.32, 79.30, 80.52),
    }.items()
}
# Table S3, SD-198: (K, M) -> figures.
TABLES3: dict[tuple[int, int], Figures] = {
    (3, 1): _of("acc mcr", 63.7, 64.5),
    (5, 1): _of("acc mcr", 62.4, 61.6),
    (7, 1): _of("acc mcr", 63.4, 62.6),
    (3, 5): _of("acc mcr", 65.0, 65.0),
    (5, 5): _of("acc mcr", 65.1, 64.3),
    (7, 5): _of("acc mcr", 64.2, 64.0),
    (3, 9): _of("acc mcr", 64.8, 63.9),
    (5, 9): _of("acc mcr", 63.4, 62.2),
    (7, 9): _of("acc mcr", 64.8, 63.6),
}
# Table S4: set -> K_p -> figures.
TABLES4: dict[str, dict[int, Figures]] = {
    "sd198": {
        1: _of("acc mcr", 64.5, 64.1),
        3: _of("acc mcr", 64.7, 64.3),
        5: _of("acc mcr", 65.1, 64.3),
        7: _of("acc mcr", 65.0, 64.3),
        9: _of("acc mcr", 65.0, 64.3),
    },
    "skin7": {
        1: _of("acc mcr", 88.2, 77.4),
        3: _of("acc mcr", 88.2, 76.4),
        5: _of("acc mcr", 89.1, 78.9),
        7: _of("acc mcr", 88.3, 76.5),
        9: _of("acc mcr", 88.3, 76.4),
    },
    "pneumonia": {
        1: _of("acc mcr", 71.0, 69.4),
        3: _of("acc mcr", 71.0, 69.4),
        5: _of("acc mcr", 71.1, 69.4),
        7: _of("acc mcr", 71.0, 69.4),
        9: _of("acc mcr", 71.0, 69.4),
    },
}
# Tables 1 and S1: classes, training and test images, image size, smallest and largest class.
TABLE1: dict[str, tuple[str, ...]] = {
    "pneumonia": ("3", "21345", "5339", "1024 × 1024", "6012", "11821"),
    "sd198": ("198", "5206", "1377", "[260, 4752]", "9", "60"),
    "skin7": ("7", "8005", "2005", "600 × 450", "115", "6705"),
}
TABLES1: dict[str, tuple[str, ...]] = {
    "stl10": ("10", "5000", "8000", "96 × 96", "500", "500"),
    "tiny_imagenet": ("200", "100000", "10000", "64 × 64", "500", "500"),
    "cub200": ("200", "5994", "5794", "[120, 500]", "29", "30"),
}
# Neighborhood Watch, table 1: set -> method -> figures; and its row of the best known.
NW1: dict[str, dict[str, Figures]] = {
    name: {
        method: _of("acc", value)
        for method, value in zip(
            ("lm_mining", "lm", "mm", "mm_hard", "softmax"), values, strict=True
        )
    }
    for name, values in {
        "mnist": (99.24, 99.30, 98.63, 81.72, 98.64),
        "cifar10": (92.02, 91.79, 91.45, 91.14, 87.04),
        "epid": (68.24, 65.10, 68.24, 41.57, 62.75),
        "sarcoma": (69.44, 72.22, 58.33, 55.56, 63.89),
    }.items()
}
NW1_BEST = {"mnist": 99.76, "cifar10": 93.25, "epid": 64.3}
# Table 2, EPID, PCA to 32, as far as it can be read (its damaged cells by the other copy's).
NW2: dict[str, dict[str, float]] = {
    "LM-Mining": {"kNN": 67.45, "SVM": 67.45, "DT": 63.53, "MLP": 57.65},
    "LM": {"kNN": 65.10, "SVM": 65.10, "DT": 62.35, "MLP": 59.61},
    "MM": {"kNN": 65.49, "SVM": 68.24, "DT": 61.96, "MLP": 57.25},
    "Softmax": {"kNN": 52.16, "SVM": 58.04, "DT": 45.88, "MLP": 52.55},
}
# Table 3, sarcoma: C-index.
NW3: dict[str, float] = {
    "LM-Mining": 0.7462,
    "LM": 0.7624,
    "MM": 0.6786,
    "Softmax": 0.5256,
    "end to end (Cox network)": 0.6197,
}
