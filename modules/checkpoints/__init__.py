"""Files of other people's weights: which kind one is, and its contents in this pack's terms."""
