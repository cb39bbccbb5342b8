"""A detector in one call: photo in, objects with their parts out."""

from partseg.predict.prediction import NamedClass, Prediction
from partseg.predict.predictor import Predictor

__all__ = ["NamedClass", "Prediction", "Predictor"]
