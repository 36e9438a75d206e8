"""Several devices and processes: sharding, joining, launching."""
