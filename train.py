"""The one training program: ``deepspeed train.py [group=option] [key=value] ...`` on any number of ranks.

Also ``python train.py`` (one rank) and ``torchrun --nproc_per_node 2 train.py``. The same command continues a run
that was cut off. ``--help`` prints the resolved configuration.
"""

from mmjepa.config import run_program
from mmjepa.training.program import TrainConfig, train

if __name__ == "__main__":
    run_program("train", TrainConfig, train)
