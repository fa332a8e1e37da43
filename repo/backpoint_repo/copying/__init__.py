"""Points of one repository into another: which are missing, how each is copied, how far behind."""
