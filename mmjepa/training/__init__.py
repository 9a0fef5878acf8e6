"""The training room: engine, EMA teacher, checkpoints, metrics, health; and the pretraining task."""
