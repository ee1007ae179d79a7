"""Catalogue (SQLite), vectors (FAISS) and the gallery over both."""
