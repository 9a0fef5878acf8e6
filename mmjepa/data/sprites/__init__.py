"""The embedded benchmark "sprites": procedural, seeded, factorial clips and stills with complete ground truth."""
