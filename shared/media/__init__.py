"""Taking media in: what is accepted, and readers in processes of their own."""
