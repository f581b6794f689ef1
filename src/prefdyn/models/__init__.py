"""READING a model: loading, tokens, the forward pass, features. The one room, beside training, that knows torch."""
