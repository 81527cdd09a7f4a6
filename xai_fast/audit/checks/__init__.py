"""What is wrong with a model or its data: checks over the records of a run, each claim with its evidence."""
