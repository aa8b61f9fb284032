"""From records to pages: needs no torch, no GPU and no network."""
