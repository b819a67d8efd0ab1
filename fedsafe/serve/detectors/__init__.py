"""What makes an input strange: one score for each detector, larger where an input is stranger."""

from fedsafe.serve.detectors.base import Detector, Seen
from fedsafe.serve.detectors.building import adversarial_detectors, candidates, rebuild

__all__ = ["Detector", "Seen", "adversarial_detectors", "candidates", "rebuild"]
