"""Clips to train on: found in folders, tables and graphs, cut, checked and handed out, the same ones for the same step every time.

``find.find_clips``, ``source.from_images`` and ``procedural.moving_shapes`` find them; ``clips.ClipDataset`` cuts them as
``settings.ClipSettings`` say; ``cache.EncodedClips`` brings them through a VAE and a text encoder, once.
"""
