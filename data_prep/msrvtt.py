"""MSR-VTT to shards: ``python data_prep/msrvtt.py raw=DIR out=DATA [protocol=full]`` (docs/data.md)."""

from mmjepa.config import run_program
from mmjepa.data.sources.msrvtt import MsrvttConfig, write_msrvtt

if __name__ == "__main__":
    run_program("msrvtt_data", MsrvttConfig, write_msrvtt)
