"""From bytes to pixels and labels: layouts, archives, decoding, procedural pictures."""
