"""Corpora, tokenizers, stateless batches and mixtures: everything between a text and a batch of tokens."""
