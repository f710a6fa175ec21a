"""Training on several devices: `DDP`, `FSDP`."""
