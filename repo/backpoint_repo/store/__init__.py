"""Where objects live: one contract, and the places that fulfil it."""
