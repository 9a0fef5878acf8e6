"""Text heads on frozen encoders: attentive pooler, projections, contrastive losses, and their fitting."""
