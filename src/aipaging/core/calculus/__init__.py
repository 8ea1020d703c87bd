"""Bounds on delay, backlog and output: numbers, then algebra, then networking."""

from aipaging.core.calculus.risk_budget import (
    BudgetPart,
    BudgetSplit,
    DelayContract,
    combined_failure,
    delay_any_dependence,
    epsilon_any_dependence,
)

__all__ = [
    "BudgetPart",
    "BudgetSplit",
    "DelayContract",
    "combined_failure",
    "delay_any_dependence",
    "epsilon_any_dependence",
]
