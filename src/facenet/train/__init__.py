"""The training room: backbones, losses, data, the loop, fine-tuning, export. Needs torch."""
