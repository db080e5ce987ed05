"""What is submitted to Ray: one file, one job; arguments, one call into nfbmr, an exit code."""
