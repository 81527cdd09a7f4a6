"""Estimates from few answers: which draws to make, what they are worth, and what an estimate errs by."""
