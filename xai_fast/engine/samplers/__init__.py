"""Which variants of the inputs are run, each kind written straight into the batch."""
