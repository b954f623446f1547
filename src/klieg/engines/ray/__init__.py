"""The engine of a Ray cluster: klieg's concurrency core inside Ray actors, klieg's calls batched into Ray's."""
