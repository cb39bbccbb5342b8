"""Raw files from their publishers, or from a team's mirror: downloaded, verified, unpacked."""
