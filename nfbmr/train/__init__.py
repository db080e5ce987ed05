"""Ray Train: features once per picture, a fit per category, registry and promotion."""
