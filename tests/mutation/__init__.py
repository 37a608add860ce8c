"""A mutation run: small faults planted in modules, and which of them no test notices."""
