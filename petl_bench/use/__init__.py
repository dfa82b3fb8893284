"""Trained adapters in use: models from adapter files, their predictions, and backbones that many share."""

from petl_bench.use.exporting import FORMS, exported
from petl_bench.use.files import Trained, read, row_of
from petl_bench.use.hub import Repository, writable
from petl_bench.use.images import Image, found_images
from petl_bench.use.loading import load, model_of
from petl_bench.use.model import Model, ModelInfo
from petl_bench.use.model_card import model_card, with_card
from petl_bench.use.peft_reading import read_peft
from petl_bench.use.prediction import ClassProbability, Prediction, Unreadable, predictions
from petl_bench.use.shared import SharedBackbone

__all__ = [
    "FORMS",
    "ClassProbability",
    "Image",
    "Model",
    "ModelInfo",
    "Prediction",
    "Repository",
    "SharedBackbone",
    "Trained",
    "Unreadable",
    "exported",
    "found_images",
    "load",
    "model_card",
    "model_of",
    "predictions",
    "read",
    "read_peft",
    "row_of",
    "with_card",
    "writable",
]
