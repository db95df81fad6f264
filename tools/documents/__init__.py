"""What of the documents the code makes itself: reference pages, pictures, and the site."""
