"""What `scripts/crash` does to a gallery: kills, power cuts, failing disks."""
