"""Rare delays: probabilities down to 1e-9 and below, by importance sampling and by multilevel splitting.

`estimate.rare_exceedance` chooses: a single first-come-first-served domain whose work has a moment generating function
of closed form is twisted by theta*, the decay of the network calculus; everything else that is a line of such domains
is split. Other disciplines are refused: their rare delays need crude simulation.
"""
