"""Worker processes: started, watched and killed."""
