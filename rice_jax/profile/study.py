"""What the study reports of its eight nets, as printed there, and where its figures are wrong."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

INPUT_SHAPE = (224, 224, 3)
VARIETIES = ("Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag")
"""The classes of its images."""
TEST_IMAGES = 7500
"""Images of the test set, for which the study states TFLOPs."""


def _net(
    params: int,
    trainable: int,
    filters: int,
    flops: int,
    tflops: float,
    best_epoch: int,
    train: tuple[float, float],
    validation: tuple[float, float],
    augmented: float,
    macro: tuple[float, float, float],
) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "params": params,
            "trainable": trainable,
            "filters": filters,
            "flops": flops,
            "tflops_7500": tflops,
            "best_epoch": best_epoch,
            "train_accuracy": train[0],
            "train_loss": train[1],
            "val_accuracy": validation[0],
            "val_loss": validation[1],
            "augmented_test_accuracy": augmented,
            "macro": dict(zip(("precision", "recall", "f1"), macro, strict=True)),
        }
    )


REPORTED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cnn": _net(
            params=12_939_077,
            trainable=12_939_077,
            filters=224,
            flops=1_042_859_422,
            tflops=7.82,
            best_epoch=9,
            train=(0.9986, 0.004),
            validation=(0.9963, 0.0132),
            augmented=0.7092,
            macro=(0.74, 0.71, 0.71),
        ),
        "cnn_light": _net(
            params=51_669,
            trainable=51_669,
            filters=24,
            flops=7_551_694,
            tflops=0.05664,
            best_epoch=19,
            train=(0.9986, 0.0044),
            validation=(0.997, 0.0108),
            augmented=0.7456,
            macro=(0.8, 0.75, 0.74),
        ),
        "googlenet": _net(
            params=5_978_677,
            trainable=5_978_677,
            filters=5_808,
            flops=3_179_339_598,
            tflops=23.85,
            best_epoch=24,
            train=(0.9988, 0.0039),
            validation=(0.9975, 0.0111),
            augmented=0.8675,
            macro=(0.89, 0.87, 0.87),
        ),
        "googlenet_light": _net(
            params=580_905,
            trainable=580_905,
            filters=1_456,
            flops=280_058_490,
            tflops=2.1,
            best_epoch=16,
            train=(0.9983, 0.0071),
            validation=(0.9981, 0.007),
            augmented=0.9319,
            macro=(0.94, 0.93, 0.93),
        ),
        "vgg16": _net(
            params=14_979_909,
            trainable=7_344_645,
            filters=4_320,
            flops=30_713_485_342,
            tflops=226.3,
            best_epoch=11,
            train=(0.9994, 0.0024),
            validation=(0.9979, 0.0099),
            augmented=0.9649,
            macro=(0.97, 0.96, 0.96),
        ),
        "vgg_light": _net(
            params=7_900_485,
            trainable=265_221,
            filters=2_688,
            flops=27_938_627_102,
            tflops=290.54,
            best_epoch=28,
            train=(0.9982, 0.0061),
            validation=(0.9977, 0.0077),
            augmented=0.9227,
            macro=(0.94, 0.92, 0.92),
        ),
        "vgg_custom": _net(
            params=144_853,
            trainable=144_853,
            filters=288,
            flops=1_203_943_966,
            tflops=9.02,
            best_epoch=41,
            train=(0.9986, 0.0051),
            validation=(0.9988, 0.0042),
            augmented=0.9909,
            macro=(0.99, 0.99, 0.99),
        ),
        "final": _net(
            params=17_301,
            trainable=17_301,
            filters=56,
            flops=167_860_766,
            tflops=1.26,
            best_epoch=34,
            train=(0.9899, 0.031),
            validation=(0.9897, 0.0305),
            augmented=0.9533,
            macro=(0.95, 0.95, 0.95),
        ),
    }
)
"""By the net's name: params, trainable, filters, flops (of one image), tflops_7500 (of the test
set), and the accuracies and losses of training, validation and the augmented test set."""

_INCEPTION = (
    "the study counts the channels that an inception concatenates; its reducing convolutions "
    "have filters too"
)


def _erratum(model: str, field: str, figures: tuple[float, float], why: str) -> Mapping[str, Any]:
    reported, correct = figures
    return MappingProxyType(
        {"model": model, "field": field, "reported": reported, "correct": correct, "why": why}
    )


ERRATA: Sequence[Mapping[str, Any]] = (
    _erratum("vgg16", "filters", (4320, 4224), "2*64 + 2*128 + 3*256 + 6*512"),
    _erratum("vgg16", "tflops_7500", (226.30, 230.35), "30713485342 * 7500"),
    _erratum("vgg_light", "tflops_7500", (290.54, 209.54), "27938627102 * 7500"),
    _erratum("vgg_custom", "tflops_7500", (9.02, 9.03), "1203943966 * 7500"),
    _erratum("googlenet", "filters", (5808, 7280), _INCEPTION),
    _erratum("googlenet_light", "filters", (1456, 1940), _INCEPTION),
)
"""Figures of `REPORTED` that do not follow from the study's own nets, and what does."""


def reported(
    name: str | None, params: int, flops: int, input_shape: Sequence[int]
) -> dict[str, Any] | None:
    """The study's figures for the net called `name`; None where this is not that net.

    Args:
        name: a name of `REPORTED`, or any other.
        params: the net's number of parameters: other widths than the study's give another.
        flops: those of one image, by `study`: another stride, or an image that is averaged first,
            has the same parameters and fewer of these.
        input_shape: (N, H, W, C) of the input; the study's images are 224x224x3.
    """
    figures = REPORTED.get(name or "")
    if figures is None or tuple(input_shape[1:]) != INPUT_SHAPE:
        return None
    same = (figures["params"], figures["flops"]) == (params, flops)
    return dict(figures) if same else None


def errata(name: str) -> list[dict[str, Any]]:
    """What of the study's figures for `name` is wrong: field, reported, correct, why."""
    return [dict(entry) for entry in ERRATA if entry["model"] == name]
