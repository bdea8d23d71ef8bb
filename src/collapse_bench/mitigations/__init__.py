"""Mitigations: weigh before fitting, refine after it, curate after sampling."""
