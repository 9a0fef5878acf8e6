"""Published data sets and generic listings: one module reads the annotation files of one data set, and nothing else."""
