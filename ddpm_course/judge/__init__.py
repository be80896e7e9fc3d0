"How good samples are."
