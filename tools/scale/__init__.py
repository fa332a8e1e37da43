"""What a repository of a given size comes to: objects, requests, prices, memory."""
