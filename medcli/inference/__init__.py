"""The engine that predicts and embeds; no torch."""
