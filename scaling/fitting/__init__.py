"""Fitting laws to tables: objectives, solver, uncertainty, and decisions read off a fit."""

from scaling.fitting.estimate import fit
from scaling.fitting.inversions import Decision, critical_ratio, turning_point
from scaling.fitting.objectives import Objective, huber, least_squares
from scaling.fitting.result import Errors, Fit, Refusal
from scaling.fitting.tables import largest

__all__ = [
    "Decision",
    "Errors",
    "Fit",
    "Objective",
    "Refusal",
    "critical_ratio",
    "fit",
    "huber",
    "largest",
    "least_squares",
    "turning_point",
]
