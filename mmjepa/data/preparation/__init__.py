"""From a published data set on disk to splits of shards: everything that does not depend on which data set it is.

A data set (mmjepa/data/sources) reads its annotation files into a :class:`~.records.SplitPlan` for each split;
:func:`~.splits.prepare` checks them, makes the shards in parallel and in any order, and writes the manifests.
"""
