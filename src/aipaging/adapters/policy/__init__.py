"""Policies in Cedar: who may page, relocate and extend where."""
