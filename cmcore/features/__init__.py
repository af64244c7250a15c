"""What pictures are compared by: their pixels, or what a network sees in them.

Features are functions of pictures, (N, C, H, W) float32 in [-1, 1], to vectors, (N, d) float32, with a ``name``. Those that
can tell classes apart, `Classifier`, also have ``labels(x)``.
"""

from cmcore.features.classifier import Classifier as Classifier
from cmcore.features.classifier import load_classifier as load_classifier
from cmcore.features.pixels import Features as Features
from cmcore.features.pixels import Pixels as Pixels
from cmcore.features.training import train_classifier as train_classifier
