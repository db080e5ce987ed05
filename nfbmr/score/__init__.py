"""Ray Data: plan, fetch, decode, score, commit."""
