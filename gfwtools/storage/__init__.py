"""What gfwtools keeps on disk: atomic files, the lock, the state."""
