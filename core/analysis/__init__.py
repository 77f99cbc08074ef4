"""Which lesions are missed, and what goes with it: features of lesions, strata, models and distributions."""
