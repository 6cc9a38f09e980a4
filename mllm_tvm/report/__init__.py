"""Pictures of a timeline: Chrome traces and self-contained HTML pages."""
