"""Probes on frozen features: attentive, linear, kNN, the majority row, and the pixel controls."""

from mmjepa.evaluation.probes.controls import CONTROLS, control_pixels
from mmjepa.evaluation.probes.fit import PROBES, Probe, ProbeResult, fit_probe, majority_row, make_probe

__all__ = [
    "CONTROLS",
    "PROBES",
    "Probe",
    "ProbeResult",
    "control_pixels",
    "fit_probe",
    "majority_row",
    "make_probe",
]
