"""Fitting laws to tables: objectives, solver, uncertainty, comparison, and decisions read off a fit."""

from scaling.fitting.best_schedule import BestSchedule, best_schedule
from scaling.fitting.cascade import Cascade, cascade, data_efficiency
from scaling.fitting.comparison import Comparison, compare, rank_all
from scaling.fitting.compute_optimal import ComputeOptimal, compute_optimal
from scaling.fitting.design import Design, Plan, design
from scaling.fitting.each import fit_each
from scaling.fitting.estimate import fit, fit_points
from scaling.fitting.information import Information, information
from scaling.fitting.inversions import Decision, critical_ratio, turning_point
from scaling.fitting.isoflop import Frontier, curve_frontier, isoflop_frontier
from scaling.fitting.knowledge import Knowledge, assumed
from scaling.fitting.limited_tokens import ratio_for_limited_tokens
from scaling.fitting.mixture_optimum import BestMixture, best_bimix, best_mixture
from scaling.fitting.multiplier import compute_multiplier, mean_multiplier
from scaling.fitting.objectives import Objective, huber, least_squares
from scaling.fitting.optimum import Optimum, optimal_rate, sweep_optimum
from scaling.fitting.points import Points
from scaling.fitting.prefixes import Prefixes, prefixes
from scaling.fitting.problem import Problem
from scaling.fitting.profile import Profile, profile
from scaling.fitting.repeats import allocation, effective_tokens, epochs_until, value_of_next_epoch
from scaling.fitting.result import Errors, Fit, Refusal
from scaling.fitting.tables import largest
from scaling.fitting.two_stage import TwoStage, two_stage
from scaling.fitting.validation import hold_out_each, rolling

__all__ = [
    "BestMixture",
    "BestSchedule",
    "Cascade",
    "Comparison",
    "ComputeOptimal",
    "Decision",
    "Design",
    "Errors",
    "Fit",
    "Frontier",
    "Information",
    "Knowledge",
    "Objective",
    "Optimum",
    "Plan",
    "Points",
    "Prefixes",
    "Problem",
    "Profile",
    "Refusal",
    "TwoStage",
    "allocation",
    "assumed",
    "best_bimix",
    "best_mixture",
    "best_schedule",
    "cascade",
    "compare",
    "compute_multiplier",
    "compute_optimal",
    "critical_ratio",
    "curve_frontier",
    "data_efficiency",
    "design",
    "effective_tokens",
    "epochs_until",
    "fit",
    "fit_each",
    "fit_points",
    "hold_out_each",
    "huber",
    "information",
    "isoflop_frontier",
    "largest",
    "least_squares",
    "mean_multiplier",
    "optimal_rate",
    "prefixes",
    "profile",
    "rank_all",
    "ratio_for_limited_tokens",
    "rolling",
    "sweep_optimum",
    "turning_point",
    "two_stage",
    "value_of_next_epoch",
]
