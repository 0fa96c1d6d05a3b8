"""Fitting laws to tables: objectives, solver, uncertainty, and decisions read off a fit."""

from scaling.fitting.each import fit_each
from scaling.fitting.estimate import fit, fit_points
from scaling.fitting.inversions import Decision, critical_ratio, turning_point
from scaling.fitting.objectives import Objective, huber, least_squares
from scaling.fitting.points import Points
from scaling.fitting.problem import Problem
from scaling.fitting.result import Errors, Fit, Refusal
from scaling.fitting.tables import largest

__all__ = [
    "Decision",
    "Errors",
    "Fit",
    "Objective",
    "Points",
    "Problem",
    "Refusal",
    "critical_ratio",
    "fit",
    "fit_each",
    "fit_points",
    "huber",
    "largest",
    "least_squares",
    "turning_point",
]
