"""Federation: what passes between this site and others."""
