"""Parts of a clip: a call of the model about some frames, with what belongs to each of them."""
