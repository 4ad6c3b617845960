"""What `facenet video` writes: events, tracks, subtitles, a timeline, portraits, films."""
