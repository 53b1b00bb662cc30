"""Stands in for torchaudio, which some ComfyUI releases import at start and these tests never call."""

from . import functional as functional
from . import transforms as transforms
