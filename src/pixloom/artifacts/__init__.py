"""Artifacts: immutable bytes addressed by their sha256, and manifests of items kept in them."""

from __future__ import annotations

from pixloom.artifacts.store import ArtifactStore, open_store

__all__ = ["ArtifactStore", "open_store"]
