"""Proofs that a point can be used: how far it was tried, when, and what came of it."""
